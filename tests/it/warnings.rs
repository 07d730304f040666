//! The start and `check` warn about risky settings that work. A secret is read within limits and is never printed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{SCRIPTED_TEXT, until};
use crate::program::{Installation, UPSTREAM_KEY};

/// A file with the API key of the installation.
fn key_file(installation: &mut Installation, mode: u32) -> PathBuf {
    let file = installation.folder.path().join("upstream-key");
    fs::write(&file, UPSTREAM_KEY).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    name_key_file(installation, &file);
    file
}

fn name_key_file(installation: &mut Installation, file: &Path) {
    installation.unset("UPSTREAM__API_KEY");
    installation.set("UPSTREAM__API_KEY_FILE", file.to_str().unwrap());
}

/// The warnings of `check`, which still succeeds.
async fn warnings(installation: &Installation) -> Vec<String> {
    let ended = installation.run("check").await;
    assert_eq!(ended.code, 0, "{}", ended.out);
    ended.out.lines().filter_map(|line| line.strip_prefix("warning ")).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_key_file_that_others_can_write_is_warned_of_and_one_that_they_can_read_is_not() {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    assert!(warnings(&installation).await.is_empty());
    for mode in [0o600, 0o644, 0o444] {
        key_file(&mut installation, mode);
        assert!(warnings(&installation).await.is_empty(), "{mode:o}");
    }
    for mode in [0o666, 0o620, 0o602] {
        key_file(&mut installation, mode);
        let warnings = warnings(&installation).await;
        let [warning] = &warnings[..] else { panic!("{mode:o}: {warnings:?}") };
        assert!(warning.starts_with("upstream.api_key_file: "), "{warning}");
        assert!(!warning.contains(UPSTREAM_KEY), "{warning}");
    }
    let service = installation.serve().await;
    until("the warning", async || service.log().contains("upstream.api_key_file: ")).await;
    assert!(!service.log().contains(UPSTREAM_KEY));
}

#[tokio::test]
async fn a_configuration_that_anybody_can_write_is_warned_of() {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    let file = installation.folder.path().join("gateway.toml");
    fs::write(&file, "[log]\nfilter = \"info\"\n").unwrap();
    installation.variable("OCR_GATEWAY_CONFIG", file.to_str().unwrap());
    for (mode, count) in [(0o644, 0), (0o664, 0), (0o666, 1)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(warnings(&installation).await.len(), count, "{mode:o}");
    }
}

#[tokio::test]
async fn a_database_that_anybody_can_write_is_warned_of() {
    let installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.key("acme").await;
    assert!(warnings(&installation).await.is_empty());
    let file = installation.folder.path().join("gateway.db");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o606)).unwrap();
    let warnings = warnings(&installation).await;
    assert!(
        matches!(&warnings[..], [warning] if warning.starts_with("database.url: ")),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn a_key_file_without_end_is_refused_at_once() {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    let folder = installation.folder.path().to_owned();
    let pipe = folder.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let large = folder.join("large");
    fs::write(&large, vec![b'k'; 64 * 1024 + 1]).unwrap();
    for file in [Path::new("/dev/zero"), &pipe, &folder, &large] {
        name_key_file(&mut installation, file);
        for command in ["check", "serve"] {
            let ended = installation.run(command).await;
            let told = format!("upstream.api_key_file: cannot read {}: it ", file.display());
            assert_eq!(ended.code, 1, "{command} {}", file.display());
            assert!(ended.err.contains(&told), "{}", ended.err);
        }
    }
}

#[tokio::test]
async fn a_key_that_leaves_the_machine_unencrypted_is_warned_of_at_the_start() {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    // Nothing is sent at start, so the addresses need not exist.
    installation.set("UPSTREAM__BASE_URL", "http://dashscope.example");
    installation.variable("HTTP_PROXY", "http://user:hidden@proxy.example:3128");
    let service = installation.serve().await;
    let log = service.log();
    assert!(
        log.contains("upstream.base_url: the key and all pictures go to dashscope.example"),
        "{log}"
    );
    assert!(log.contains("HTTP_PROXY: the proxy's password goes to proxy.example"), "{log}");
    assert!(!log.contains("hidden") && !log.contains(UPSTREAM_KEY), "{log}");
}
