//! Keeps a thread, or a process of the server's, on one core.

#[cfg(not(target_os = "linux"))]
pub(crate) use self::elsewhere::*;
#[cfg(target_os = "linux")]
pub(crate) use self::linux::*;

#[cfg(target_os = "linux")]
mod linux {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;

    const THIS_THREAD: Pid = Pid::from_raw(0);

    /// This thread, held on the first core it may use, and a server on the last.
    #[derive(Debug)]
    pub(crate) struct Pinned {
        before: CpuSet,
    }

    impl Pinned {
        /// Holds this thread and the processes `servers` on a core each; `None` where that cannot be.
        pub(crate) fn apart(servers: &[i32]) -> Option<Self> {
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
mod elsewhere {
    #[derive(Debug)]
    pub(crate) struct Pinned;

    impl Pinned {
        pub(crate) fn apart(_: &[i32]) -> Option<Self> {
            None
        }
    }
}
