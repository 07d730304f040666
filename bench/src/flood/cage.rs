//! A process with a memory limit.
//!
//! A control group sets the limit if one can be created, as for a container: page cache and the
//! kernel's socket buffers may count too, and a process over the limit is killed. Otherwise
//! `prlimit --data` limits its data, and allocation fails at the limit. The gateway does not detect
//! that limit, so its settings give the value that it would have computed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

/// Joins the group `$0` and then executes the other arguments.
const JOIN: &str = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;

/// The memory limit of one process.
#[derive(Debug)]
pub(crate) struct Cage {
    bytes: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A control group, and the file with its peak memory.
    Group {
        path: PathBuf,
        peak: &'static str,
    },
    Data,
}

impl Cage {
    /// A limit of so many bytes.
    pub(crate) fn of(bytes: u64) -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let first = group(&groups, "memory").map(|own| format!("/sys/fs/cgroup/memory{own}"));
        let second = group(&groups, "").map(|own| format!("/sys/fs/cgroup{own}"));
        let found = [
            (first, "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
            (second, "memory.max", "memory.peak"),
        ];
        let group = found.into_iter().find_map(|(parent, limit, peak)| {
            let path = Path::new(&parent?).join(format!("ocr-gateway-flood-{}", process::id()));
            limited_group(&path, limit, bytes).ok()?;
            Some(Kind::Group { path, peak })
        });
        Self { bytes, kind: group.unwrap_or(Kind::Data) }
    }

    /// The kind of the limit.
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Group { peak: "memory.peak", .. } => "control group, version 2",
            Kind::Group { .. } => "control group, version 1",
            Kind::Data => "prlimit --data",
        }
    }

    /// The command, with the limit.
    pub(crate) fn around(&self, inner: &Command) -> Command {
        let mut command = match &self.kind {
            Kind::Group { path, .. } => {
                let mut command = Command::new("sh");
                command.args(["-c", JOIN]).arg(path);
                command
            }
            Kind::Data => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--data={}", self.bytes));
                command
            }
        };
        command.arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }

    /// Lines of the gateway's section `[server]`.
    pub(crate) fn settings(&self) -> String {
        match self.kind {
            Kind::Group { .. } => String::new(),
            Kind::Data => format!(
                "max_in_flight_bytes = {}\nmax_in_flight_requests = {}\nmax_connections = {}\n",
                self.bytes / 2,
                self.bytes / 8 / (256 * 1024),
                self.bytes / 4 / (64 * 1024)
            ),
        }
    }

    /// The peak memory of the group so far, in bytes; `None` without a group.
    pub(crate) fn peak(&self) -> Option<u64> {
        let Kind::Group { path, peak } = &self.kind else { return None };
        fs::read_to_string(path.join(peak)).ok()?.trim().parse().ok()
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        if let Kind::Group { path, .. } = &self.kind {
            // The group is empty once its process has ended.
            let _ = fs::remove_dir(path);
        }
    }
}

fn limited_group(path: &Path, limit: &str, bytes: u64) -> io::Result<()> {
    fs::create_dir(path)?;
    // Without the controller, the file does not exist and cannot be created.
    let limited =
        fs::metadata(path.join(limit)).and_then(|_| fs::write(path.join(limit), bytes.to_string()));
    if limited.is_err() {
        fs::remove_dir(path)?;
    }
    limited
}

/// The path of this process's group, from `/proc/self/cgroup`.
fn group<'a>(groups: &'a str, controller: &str) -> Option<&'a str> {
    groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let path = if path == "/" { "" } else { path };
        controllers.split(',').any(|name| name == controller).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_a_controller_is_found_in_both_versions() {
        let groups = "4:cpu,memory:/a\n0::/b\n";
        assert_eq!((group(groups, "memory"), group(groups, "")), (Some("/a"), Some("/b")));
        assert_eq!(group("0::/\n", ""), Some(""));
        assert_eq!(group("0::/\n", "memory"), None);
    }
}
