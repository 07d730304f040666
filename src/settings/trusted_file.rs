//! Files that an operator trusts: those that hold a secret, and the configuration.
//!
//! A secret is read whole at the start, so its size is bounded. It must be a regular file: a pipe without a writer
//! would block the start silently, and a device may never end.
//!
//! A user with write access to such a file controls which account pays and where pictures go, so write access of others
//! draws a warning. Read access draws none: Kubernetes mounts secrets with mode 0644 and Docker with 0444, in
//! containers without other users.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// The largest file of a secret in bytes. Keys have some dozen, bundles of certificates some thousand.
const LARGEST_SECRET: u64 = 64 * 1024;

/// The users besides the owner whose write access draws a warning.
#[derive(Debug, Clone, Copy)]
pub(super) enum Others {
    /// The file's group and everybody else; for secrets.
    GroupAndWorld,
    /// Everybody else. On systems where each user has a private group, files are often writable for that group.
    World,
}

/// The text of a file that holds a secret.
///
/// # Errors
///
/// If it cannot be read, is no regular file, is empty, has more than 64 KiB or is not UTF-8. No error quotes its
/// content.
pub(super) fn secret(path: &Path) -> io::Result<String> {
    // Opening a pipe waits for its writer, so check the kind first.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file but a folder, a pipe or a device"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_SECRET + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_SECRET {
        return Err(io::Error::other(format!("it has more than {LARGEST_SECRET} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))?;
    if text.trim().is_empty() {
        return Err(io::Error::other("it is empty"));
    }
    Ok(text)
}

/// A warning if `others` can write or replace the file.
#[cfg(unix)]
pub(super) fn warning(path: &Path, others: Others) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;

    const GROUP: u32 = 0o020;
    const WORLD: u32 = 0o002;
    const STICKY: u32 = 0o1000;

    // Kubernetes mounts secrets behind symbolic links; the target counts.
    let path = fs::canonicalize(path).ok()?;
    let mode = |path: &Path| Some(fs::metadata(path).ok()?.permissions().mode());
    let counted = match others {
        Others::GroupAndWorld => GROUP | WORLD,
        Others::World => WORLD,
    };
    let of_file = mode(&path)?;
    if of_file & counted != 0 {
        return Some(format!(
            "others than its owner can write {} (mode {:04o}), and so decide who pays and where \
             pictures are sent: chmod go-w",
            path.display(),
            of_file & 0o7777
        ));
    }
    let folder = path.parent()?;
    let of_folder = mode(folder)?;
    // In a sticky folder only the owner of a file can replace it.
    let replaceable = of_folder & WORLD != 0 && of_folder & STICKY == 0;
    replaceable.then(|| {
        format!(
            "anybody can replace {}, because its folder has mode {:04o}: chmod o-w the folder",
            path.display(),
            of_folder & 0o7777
        )
    })
}

/// This system has no such permissions.
#[cfg(not(unix))]
pub(super) fn warning(_: &Path, _: Others) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A folder that only its owner may change, with a key in it.
    fn key() -> (TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        fs::write(&file, "sk-secret\n").unwrap();
        chmod(&file, 0o600);
        (folder, file)
    }

    #[test]
    fn a_secret_of_up_to_64_kib_is_read() {
        let (_folder, file) = key();
        assert_eq!(secret(&file).unwrap(), "sk-secret\n");
        fs::write(&file, "x".repeat(64 * 1024)).unwrap();
        assert_eq!(secret(&file).unwrap().len(), 64 * 1024);
    }

    #[test]
    fn a_secret_that_is_too_large_or_no_text_is_refused_and_not_shown() {
        let (_folder, file) = key();
        fs::write(&file, "sk-secret".repeat(8_000)).unwrap();
        let error = secret(&file).unwrap_err().to_string();
        assert_eq!(error, "it has more than 65536 bytes");
        fs::write(&file, b"sk-secret\xff").unwrap();
        assert_eq!(secret(&file).unwrap_err().to_string(), "it is not UTF-8");
    }

    #[test]
    fn a_device_and_a_folder_are_refused_before_they_are_read() {
        for path in ["/dev/zero", "/dev/null", "/"] {
            let error = secret(Path::new(path)).unwrap_err().to_string();
            assert!(error.starts_with("it is no regular file"), "{path}: {error}");
        }
        assert!(secret(Path::new("/no/such/file")).is_err());
    }

    #[test]
    fn a_file_that_others_can_write_draws_a_warning() {
        let (_folder, file) = key();
        for (mode, of_secret, of_configuration) in [
            (0o400, false, false),
            (0o600, false, false),
            (0o644, false, false),
            (0o444, false, false),
            (0o660, true, false),
            (0o664, true, false),
            (0o602, true, true),
            (0o666, true, true),
        ] {
            chmod(&file, mode);
            let warned = |others| warning(&file, others).is_some();
            assert_eq!(warned(Others::GroupAndWorld), of_secret, "{mode:o}");
            assert_eq!(warned(Others::World), of_configuration, "{mode:o}");
        }
        let text = warning(&file, Others::GroupAndWorld).unwrap();
        assert!(text.contains("/key (mode 0666)") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn a_file_in_a_folder_that_anybody_can_change_draws_a_warning_unless_it_is_sticky() {
        let (folder, file) = key();
        for (mode, expected) in [(0o700, false), (0o775, false), (0o777, true), (0o1777, false)] {
            chmod(folder.path(), mode);
            let warned = warning(&file, Others::GroupAndWorld);
            assert_eq!(warned.is_some(), expected, "{mode:o}: {warned:?}");
        }
    }

    #[test]
    fn a_secret_as_kubernetes_mounts_it_draws_none() {
        let volume = tempfile::tempdir().unwrap();
        chmod(volume.path(), 0o1777);
        let data = volume.path().join("..2030_01_01");
        fs::create_dir(&data).unwrap();
        chmod(&data, 0o755);
        fs::write(data.join("key"), "sk-secret").unwrap();
        chmod(&data.join("key"), 0o644);
        symlink("..2030_01_01", volume.path().join("..data")).unwrap();
        symlink("..data/key", volume.path().join("key")).unwrap();
        let file = volume.path().join("key");
        assert_eq!(secret(&file).unwrap(), "sk-secret");
        assert_eq!(warning(&file, Others::GroupAndWorld), None);
        chmod(&data.join("key"), 0o666);
        assert!(warning(&file, Others::GroupAndWorld).is_some());
    }
}
