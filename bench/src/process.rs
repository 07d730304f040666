//! A program on a core of its own, and its CPU time and memory as Linux reports them.
//!
//! CPU time is user and system time of the whole process from `/proc/PID/stat`. The kernel counts
//! it in nanoseconds and shows it in ticks of 10 ms, so for a window of seconds the error is one
//! percent. The peak of memory is `VmHWM`, reset before a window if the kernel allows it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running program; it is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `command`, with its output in `log`.
    pub(crate) fn start(mut command: Command, log: &Path) -> io::Result<Self> {
        let log = File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self { child: command.spawn()? })
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().map_or(true, |status| status.is_some())
    }

    /// User and system time so far.
    pub(crate) fn cpu_time(&self) -> io::Result<Duration> {
        let stat = self.read("stat")?;
        // proc_pid_stat(5): the name may contain spaces, so fields are counted after its closing
        // bracket; utime and stime are the 14th and 15th of all.
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let ticks =
            fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        let ticks_per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_nanos(ticks * 1_000_000_000 / ticks_per_second.max(1)))
    }

    /// Resident memory now, in bytes.
    pub(crate) fn resident(&self) -> io::Result<u64> {
        self.memory("VmRSS:")
    }

    /// The peak of resident memory since [`Process::forget_peak`], in bytes.
    pub(crate) fn peak(&self) -> io::Result<u64> {
        self.memory("VmHWM:")
    }

    /// Resets the peak (`proc_pid_clear_refs(5)`, 5). If the kernel refuses, the peak is that of
    /// the process's whole life, which is too high.
    pub(crate) fn forget_peak(&self) {
        let _ = fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }

    /// The number of open files, and how many of them are sockets.
    pub(crate) fn open_files(&self) -> io::Result<(usize, usize)> {
        let (mut files, mut sockets) = (0, 0);
        for entry in fs::read_dir(format!("/proc/{}/fd", self.child.id()))? {
            files += 1;
            // A file that was closed meanwhile does not count.
            let target = fs::read_link(entry?.path()).unwrap_or_default();
            sockets += usize::from(target.to_string_lossy().starts_with("socket:"));
        }
        Ok((files, sockets))
    }

    /// The number of threads.
    pub(crate) fn threads(&self) -> io::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/task", self.child.id()))?.count())
    }

    fn memory(&self, name: &str) -> io::Result<u64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; any other failure cannot be reported here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that runs `program` on `core` only; on any core if that is `None`.
pub(crate) fn on_core(core: Option<usize>, program: &OsStr) -> Command {
    let Some(core) = core else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

/// Whether programs can be pinned to a core here.
pub(crate) fn can_pin(core: usize) -> bool {
    succeeds(&mut on_core(Some(core), OsStr::new("true")))
}

/// Whether a command can be run and succeeds.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_program_has_time_and_memory_and_an_ended_one_is_noticed() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut process = Process::start(command, log.path()).unwrap();
        assert!(!process.has_ended());
        process.cpu_time().unwrap();
        assert_eq!((process.open_files().unwrap().1, process.threads().unwrap()), (0, 1));
        process.forget_peak();
        // In this order: a program that is still being loaded grows between the two.
        let resident = process.resident().unwrap();
        assert!(process.peak().unwrap() >= resident && resident > 0);
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        assert!(process.has_ended());
    }
}
