//! The limits of a worker. They are set before it gets the first byte of a document.
//!
//! The kernel enforces them, so they hold even if a document takes over the worker:
//!
//! | resource | limit |
//! |---|---|
//! | memory | what the process maps at the start, and `documents.worker_memory_bytes`, by `RLIMIT_AS` |
//! | CPU time | so many seconds for each step, by `RLIMIT_CPU` |
//! | files, sockets, processes, programs | none can be opened or started: a filter of system calls refuses that |
//! | life | it ends with the service: by a signal of the kernel, and at the end of its input |
//!
//! The filter is a list of what is allowed. All other calls fail with `EPERM`, which code that probes for a feature
//! expects. A kernel without such filters leaves the other limits.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Descriptors of a worker: the standard ones, the status of its memory, a font, and spare ones.
const DESCRIPTORS: u64 = 16;

/// Added to the priority of the service, so that its connections are served first where processors are short.
const NICENESS: i32 = 5;

/// What one step may take.
#[derive(Debug, Clone, Copy)]
pub struct CageLimits {
    /// Memory beyond that of the start, in bytes.
    pub memory: u64,
    /// CPU time of one step, in seconds.
    pub cpu_seconds: u64,
}

/// A closed cage.
#[derive(Debug)]
pub(super) struct Cage {
    /// Why system calls are not filtered, if they are not.
    pub(super) unfiltered: Option<String>,
    cpu_seconds: u64,
    /// Opened before no file could be.
    status: File,
    mapped_at_start: u64,
}

/// A cage that cannot be closed: the process must not read a document.
#[derive(Debug, thiserror::Error)]
pub enum CageError {
    /// The kernel refuses a limit.
    #[error("a limit of the process cannot be set: {0}")]
    Limit(#[from] rustix::io::Errno),
    /// The memory of this process is unknown.
    #[error("/proc/self/status cannot be read: {0}")]
    Memory(#[from] io::Error),
}

impl Cage {
    /// Limits this process, for good.
    ///
    /// # Errors
    ///
    /// [`CageError`] if a limit of the kernel cannot be set.
    pub(super) fn close(limits: CageLimits) -> Result<Self, CageError> {
        let status = File::open("/proc/self/status")?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // Only the priority among processes depends on it.
        let _ = rustix::process::nice(NICENESS);
        let mapped_at_start = mapped(&status)?;
        limit(Resource::As, mapped_at_start.saturating_add(limits.memory))?;
        limit(Resource::Core, 0)?;
        limit(Resource::Fsize, 0)?;
        limit(Resource::Nofile, DESCRIPTORS)?;
        let unfiltered = filter_calls().err().map(|error| error.to_string());
        Ok(Self { unfiltered, cpu_seconds: limits.cpu_seconds, status, mapped_at_start })
    }

    /// Grants the CPU time of another step.
    ///
    /// # Errors
    ///
    /// [`CageError::Limit`].
    pub(super) fn grant_step(&self) -> Result<(), CageError> {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let used = u64::try_from(used.tv_sec).unwrap_or(0);
        // The limit counts from the start of the process, in whole seconds. The one that has begun is added.
        let current = Some(used.saturating_add(1).saturating_add(self.cpu_seconds));
        let maximum = getrlimit(Resource::Cpu).maximum;
        Ok(setrlimit(Resource::Cpu, Rlimit { current, maximum })?)
    }

    /// Whether the process maps more than at its start by over a quarter of its share.
    pub(super) fn has_grown(&self, memory: u64) -> bool {
        let allowed = self.mapped_at_start.saturating_add(memory / 4);
        mapped(&self.status).map_or(true, |bytes| bytes > allowed)
    }
}

/// Lowers both limits of a resource.
fn limit(resource: Resource, most: u64) -> rustix::io::Result<()> {
    let most = getrlimit(resource).maximum.map_or(most, |maximum| maximum.min(most));
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
}

/// The memory that this process maps, in bytes: `VmSize` of `/proc/self/status` (proc(5)).
fn mapped(status: &File) -> io::Result<u64> {
    let mut text = [0; 4096];
    let length = status.read_at(&mut text, 0)?;
    let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
    let size = text.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kibibytes =
        size.and_then(|size| size.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let kibibytes = kibibytes.ok_or_else(|| io::Error::other("it has no VmSize"))?;
    Ok(kibibytes.saturating_mul(1024))
}

/// Allows only what reading from memory needs: input and output on what is open, memory, and the end of the process.
fn filter_calls() -> Result<(), seccompiler::Error> {
    let allowed = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_readv,
        libc::SYS_writev,
        libc::SYS_pread64,
        libc::SYS_lseek,
        libc::SYS_fstat,
        libc::SYS_close,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_clock_gettime,
        libc::SYS_getrandom,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let own_process = u64::from(std::process::id());
    let no_code = SeccompCmpOp::MaskedEq(u64::from(libc::PROT_EXEC.unsigned_abs()));
    let conditional = [
        // No memory is made executable.
        (libc::SYS_mmap, vec![rule(&[(2, no_code.clone(), 0)])?]),
        (libc::SYS_mprotect, vec![rule(&[(2, no_code, 0)])?]),
        // A panic within a panic, and an allocation that fails, send this process a signal to end it.
        (libc::SYS_tgkill, vec![rule(&[(0, SeccompCmpOp::Eq, own_process)])?]),
        // The CPU time of the next step.
        (
            libc::SYS_prlimit64,
            vec![rule(&[
                (0, SeccompCmpOp::Eq, 0),
                (1, SeccompCmpOp::Eq, u64::from(libc::RLIMIT_CPU)),
            ])?],
        ),
    ];
    let rules = allowed.into_iter().map(|call| (call, Vec::new())).chain(conditional).collect();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)?;
    let program: BpfProgram = filter.try_into()?;
    // The worker has one thread.
    seccompiler::apply_filter(&program)
}

/// A rule of these conditions: the number of an argument, how it is compared, and with what.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, seccompiler::Error> {
    let conditions = conditions.iter().map(|(argument, operator, value)| {
        let length = SeccompCmpArgLen::Dword;
        SeccompCondition::new(*argument, length, operator.clone(), *value)
    });
    let conditions = conditions.collect::<Result<Vec<_>, _>>()?;
    Ok(SeccompRule::new(conditions)?)
}

/// Something that a process in the cage must not be able to do.
#[derive(Debug)]
pub struct Attempt {
    /// What was tried.
    pub what: &'static str,
    /// Why it failed; `None` if it did not.
    pub refusal: Option<String>,
}

/// Closes the cage on this process, and tries what it must refuse.
///
/// # Errors
///
/// [`CageError`] if the cage cannot be closed.
pub fn try_cage(limits: CageLimits) -> Result<Vec<Attempt>, CageError> {
    Cage::close(limits)?;
    let attempt = |what, tried: io::Result<()>| Attempt {
        what,
        refusal: tried.err().map(|error| error.to_string()),
    };
    // Nobody needs to listen: an attempt that reaches the network fails in another way.
    let socket = match TcpStream::connect((Ipv4Addr::LOCALHOST, 9)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    };
    let program = Command::new("/proc/self/exe").arg("--version").stdout(Stdio::null()).status();
    let thread = std::thread::Builder::new().spawn(|| ()).map(|thread| drop(thread.join()));
    let memory = usize::try_from(limits.memory).unwrap_or(usize::MAX);
    let memory = Vec::<u8>::new().try_reserve_exact(memory).map_err(io::Error::other);
    Ok(vec![
        attempt("open a file", File::open("/proc/self/exe").map(drop)),
        attempt("open a socket", socket),
        attempt("start a program", program.map(drop)),
        attempt("start a thread", thread),
        attempt("take more memory than its share", memory),
    ])
}
