//! The memory that this process may use.
//!
//! In a container the machine's memory is no limit: the kernel kills the process at the limit of its control group or
//! of a parent group. So the smallest of all these limits counts, for both versions of control groups, and the
//! machine's memory if it is smaller still.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Where a limit is read: the controller in `/proc/self/cgroup`, the mount point, and the file of each group.
///
/// The second version may be mounted below the first ("hybrid", systemd's default until 2023).
const HIERARCHIES: [(&str, &str, &str); 3] = [
    ("", "sys/fs/cgroup", "memory.max"),
    ("", "sys/fs/cgroup/unified", "memory.max"),
    ("memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes"),
];

/// The memory that this process may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryLimit {
    /// The limit in bytes.
    pub bytes: u64,
    /// The file that states the limit.
    pub source: PathBuf,
}

impl MemoryLimit {
    /// Reads the limit from the file system at `root`, which is `/` except in tests; `None` if no file states one.
    pub fn read(root: &Path) -> Option<Self> {
        let machine = machine(root);
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let limits = HIERARCHIES.iter().flat_map(|&(controller, mount, file)| {
            let group = group_of(&groups, controller);
            group.into_iter().flat_map(move |group| limits(&root.join(mount), group, file))
        });
        machine.into_iter().chain(limits).min_by_key(|memory| memory.bytes)
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of memory ({})", self.bytes, self.source.display())
    }
}

/// The path of this process's group, from `/proc/self/cgroup`. Its lines are `number:controllers:path`; the second
/// version leaves `controllers` empty (cgroups(7)).
fn group_of<'a>(groups: &'a str, controller: &str) -> Option<&'a str> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        controllers.split(',').any(|name| name == controller).then_some(path)
    })
}

/// The limits of a group and of its parents. Within a container the path may be that of the host, of which only the
/// root is mounted. A file that does not exist sets no limit.
fn limits(mount: &Path, group: &str, file: &str) -> Vec<MemoryLimit> {
    let group = Path::new(group.trim_start_matches('/'));
    let files = group.ancestors().map(|group| mount.join(group).join(file));
    let limits = files.filter_map(|source| {
        // In the second version, a group without a limit has `max`.
        let bytes = fs::read_to_string(&source).ok()?.trim().parse().ok()?;
        Some(MemoryLimit { bytes, source })
    });
    limits.collect()
}

/// The machine's memory: `MemTotal` in kibibytes (proc(5)).
fn machine(root: &Path) -> Option<MemoryLimit> {
    let source = root.join("proc/meminfo");
    let text = fs::read_to_string(&source).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(MemoryLimit { bytes: kibibytes.saturating_mul(1024), source })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// The value of the first version for a group without a limit.
    const NO_LIMIT: &str = "9223372036854771712\n";

    /// A machine of 8 GiB with these files.
    fn machine_with(files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        let meminfo = ("proc/meminfo", "MemFree:  10 kB\nMemTotal:       8388608 kB\n");
        for (path, content) in [&[meminfo], files].concat() {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    /// The limit in bytes and the file that states it.
    fn read(root: &TempDir) -> (u64, String) {
        let memory = MemoryLimit::read(root.path()).unwrap();
        let source = memory.source.strip_prefix(root.path()).unwrap();
        (memory.bytes, source.to_str().unwrap().to_owned())
    }

    #[test]
    fn without_control_groups_it_is_the_machines_memory() {
        assert_eq!(read(&machine_with(&[])), (8 << 30, "proc/meminfo".to_owned()));
    }

    #[test]
    fn the_limit_of_a_group_counts_in_both_versions() {
        let second = machine_with(&[
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "536870912\n"),
        ]);
        assert_eq!(read(&second), (512 << 20, "sys/fs/cgroup/memory.max".to_owned()));
        let first = machine_with(&[
            ("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/a\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "536870912\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", NO_LIMIT),
        ]);
        let file = "sys/fs/cgroup/memory/a/memory.limit_in_bytes";
        assert_eq!(read(&first), (512 << 20, file.to_owned()));
    }

    #[test]
    fn a_group_above_may_have_the_smaller_limit() {
        let root = machine_with(&[
            ("proc/self/cgroup", "0::/pod/container\n"),
            ("sys/fs/cgroup/pod/container/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/memory.max", "1000000\n"),
            ("sys/fs/cgroup/memory.max", "2000000\n"),
        ]);
        assert_eq!(read(&root), (1_000_000, "sys/fs/cgroup/pod/memory.max".to_owned()));
    }

    #[test]
    fn a_path_of_the_host_that_a_container_does_not_see_is_passed_over() {
        let root = machine_with(&[
            ("proc/self/cgroup", "4:memory:/kubepods/pod1/c2\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "3000000\n"),
        ]);
        assert_eq!(read(&root).0, 3_000_000);
    }

    #[test]
    fn a_hybrid_machine_is_read_in_both_hierarchies() {
        let root = machine_with(&[
            ("proc/self/cgroup", "4:memory:/a\n0::/b\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", NO_LIMIT),
            ("sys/fs/cgroup/unified/b/memory.max", "4000000\n"),
        ]);
        assert_eq!(read(&root).0, 4_000_000);
    }

    #[test]
    fn a_limit_above_the_machines_memory_or_none_leaves_that() {
        for limit in ["max\n", "99999999999999\n", "", "nonsense\n"] {
            let root = machine_with(&[
                ("proc/self/cgroup", "0::/\n"),
                ("sys/fs/cgroup/memory.max", limit),
            ]);
            assert_eq!(read(&root).0, 8 << 30, "{limit:?}");
        }
    }

    #[test]
    fn a_system_that_tells_nothing_has_no_known_memory() {
        assert_eq!(MemoryLimit::read(tempfile::tempdir().unwrap().path()), None);
    }
}
