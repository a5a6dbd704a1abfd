//! CPU affinity of this thread and of server processes.

#[cfg(target_os = "linux")]
pub(crate) use self::linux::*;
#[cfg(not(target_os = "linux"))]
pub(crate) use self::unsupported::*;

#[cfg(target_os = "linux")]
mod linux {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;

    const THIS_THREAD: Pid = Pid::from_raw(0);

    /// This thread pinned to its first core, and servers pinned to its last.
    #[derive(Debug)]
    pub(crate) struct Pinned {
        before: CpuSet,
    }

    impl Pinned {
        /// Pins this thread and the processes `servers` to different cores. Returns `None` where that is impossible.
        pub(crate) fn on_separate_cores(servers: &[i32]) -> Option<Self> {
            let before = sched_getaffinity(THIS_THREAD).ok()?;
            let mut cores = (0..CpuSet::count()).filter(|core| before.is_set(*core) == Ok(true));
            let first = cores.next()?;
            let last = cores.next_back().unwrap_or(first);
            for server in servers {
                pin(Pid::from_raw(*server), last)?;
            }
            pin(THIS_THREAD, first)?;
            Some(Self { before })
        }
    }

    impl Drop for Pinned {
        fn drop(&mut self) {
            let _ = sched_setaffinity(THIS_THREAD, &self.before);
        }
    }

    fn pin(process: Pid, core: usize) -> Option<()> {
        let mut only = CpuSet::new();
        only.set(core).ok()?;
        sched_setaffinity(process, &only).ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod unsupported {
    #[derive(Debug)]
    pub(crate) struct Pinned;

    impl Pinned {
        pub(crate) fn on_separate_cores(_: &[i32]) -> Option<Self> {
            None
        }
    }
}
