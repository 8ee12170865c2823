//! What a worker may do: read the files that it is handed, and answer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use caps::CapSet;
use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope, path_beneath_rules,
};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Descriptors that a worker may have: its socket, a file, and standard streams.
const NOFILE: u64 = 16;

/// What the zygote and its workers need.
const COMMON: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_write,
];

/// What only the zygote needs: to fork, to reap, and to sandbox further. Without privileges it can
/// lower its priority and nobody else's, and never raise it.
const ZYGOTE: &[i64] = &[
    libc::SYS_clone,
    libc::SYS_ioprio_set,
    libc::SYS_pidfd_open,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_seccomp,
    libc::SYS_setpriority,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_socketpair,
    libc::SYS_unshare,
    libc::SYS_wait4,
];

/// Gives up every privilege of this process for good. Rules must be loaded by then.
///
/// # Errors
/// When anything cannot be given up: then nothing hostile may be read.
pub(crate) fn enter(uid: u32) -> Result<()> {
    give_up_privileges(uid)?;
    restrict_paths(&[]).context("cannot enter a Landlock domain")?;
    nix::sys::prctl::set_no_new_privs()?;
    seccompiler::apply_filter(&filter(&[COMMON, ZYGOTE])?)
        .context("cannot install the zygote's seccomp filter")
}

/// As [`enter`], for who will run a program that nobody knows: it may read and run what lies
/// under `paths`, and itself. It has no network, and may not get near the kernel's rarer parts.
///
/// # Errors
/// When anything cannot be given up.
pub(crate) fn enter_for_program(uid: u32, paths: &[PathBuf], program: &Path) -> Result<()> {
    if Uid::effective().is_root() {
        // Landlock knows of TCP alone, and not in every kernel.
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC).context("cannot leave the network")?;
    }
    give_up_privileges(uid)?;
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).chain([program]).collect();
    restrict_paths(&paths).context("cannot enter a Landlock domain")?;
    nix::sys::prctl::set_no_new_privs()?;
    refuse().context("cannot install the seccomp filter")
}

/// Bounds a program that is about to be run.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn narrow_program(memory: u64) -> Result<()> {
    limit(Resource::RLIMIT_DATA, memory)
}

fn give_up_privileges(uid: u32) -> Result<()> {
    if Uid::effective().is_root() {
        caps::clear(None, CapSet::Bounding).context("cannot empty the capability bounding set")?;
        setgroups(&[]).context("cannot leave the supplementary groups")?;
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
        setresgid(gid, gid, gid).context("cannot change the group")?;
        setresuid(uid, uid, uid).context("cannot change the user")?;
    }
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        caps::clear(None, set).with_context(|| format!("cannot give up capabilities ({set:?})"))?;
        ensure!(
            caps::read(None, set)?.is_empty(),
            "capabilities are left in {set:?}"
        );
    }
    nix::sys::prctl::set_dumpable(false)?;
    limit(Resource::RLIMIT_CORE, 0)?;
    limit(Resource::RLIMIT_FSIZE, 0)?;
    limit(Resource::RLIMIT_NOFILE, NOFILE)
}

/// Narrows a forked worker further: it starts nothing.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn narrow(memory: u64) -> Result<()> {
    // Not RLIMIT_AS: the engine reserves address space that it never uses.
    limit(Resource::RLIMIT_DATA, memory)?;
    seccompiler::apply_filter(&filter(&[COMMON])?).context("cannot install the worker's seccomp filter")
}

fn limit(resource: Resource, value: u64) -> Result<()> {
    setrlimit(resource, value, value).with_context(|| format!("cannot limit {resource:?} to {value}"))
}

/// No path but those below `readable` can be opened, made or run, no port used, no one outside
/// signalled. Where the kernel has no Landlock, or an older one, seccomp and the user do that
/// alone.
fn restrict_paths(readable: &[&Path]) -> Result<()> {
    let abi = ABI::V6;
    Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        // A path that is not there needs no rule.
        .add_rules(path_beneath_rules(readable, AccessFs::from_read(abi)))?
        .restrict_self()?;
    Ok(())
}

/// What no program needs that judges files: to talk to others, to look into others, to change
/// what it sees of the system, and what kernels had most of their holes in.
const REFUSED: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_add_key,
    libc::SYS_bind,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_connect,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_listen,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_socket,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_userfaultfd,
];

/// Refuses [`REFUSED`] and user namespaces, in which a process has every capability, and allows
/// all else: an unknown program cannot be killed for a call that nobody thought of.
fn refuse() -> Result<()> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in REFUSED {
        rules.insert(*call, Vec::new());
    }
    for call in [libc::SYS_clone, libc::SYS_unshare] {
        let user = u64::try_from(libc::CLONE_NEWUSER)?;
        let with_user =
            SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(user), user)?;
        rules.insert(call, vec![SeccompRule::new(vec![with_user])?]);
    }
    install(rules, libc::EPERM)?;
    // Its flags lie in memory, which no filter sees. Told that there is no such call, C
    // libraries use the older one.
    install([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS)
}

/// Has system calls answered with an error.
fn install(rules: BTreeMap<i64, Vec<SeccompRule>>, error: i32) -> Result<()> {
    let error = SeccompAction::Errno(u32::try_from(error)?);
    let arch = std::env::consts::ARCH.try_into()?;
    let filter: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, error, arch)?.try_into()?;
    Ok(seccompiler::apply_filter(&filter)?)
}

/// Kills whoever calls anything else. Memory may be mapped and protected in every
/// way but to be run: the engine made its code when the rules were loaded.
fn filter(lists: &[&[i64]]) -> Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in lists.iter().copied().flatten() {
        rules.insert(*call, Vec::new());
    }
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let executable = u64::try_from(libc::PROT_EXEC)?;
        let not_executable =
            SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(executable), 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![not_executable])?]);
    }
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?;
    Ok(filter.try_into()?)
}
