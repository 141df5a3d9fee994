//! Requests of a thread to the Linux scheduler. Advisory: every failure is ignored.
//!
//! Since Linux 6.12 an ordinary thread may request its own time slice: a short one runs earlier
//! after waking and ends earlier, without more processor time in total.
#![allow(unsafe_code)]
use super::ThreadClass;

/// The shortest slice that the kernel grants is 100 microseconds; this leaves room for one commit
/// group.
const LATENCY_SLICE_NS: u64 = 500_000;
/// Nice increment of a background thread relative to the thread that started it.
const BACKGROUND_NICE: i32 = 5;

/// The first version of the kernel's `struct sched_attr`, which all later kernels accept.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

/// Requests `class` for the calling thread.
pub(super) fn ask(class: ThreadClass) {
    let size = size_of::<Attributes>() as libc::c_uint;
    let mut attributes = Attributes::default();
    // SAFETY: the kernel writes at most `size` bytes to the struct that the pointer names; 0 is the
    // calling thread.
    let got = unsafe {
        libc::syscall(libc::SYS_sched_getattr, 0 as libc::pid_t, &raw mut attributes, size, 0 as libc::c_uint)
    };
    let ordinary = [libc::SCHED_OTHER as u32, libc::SCHED_BATCH as u32].contains(&attributes.policy);
    if got != 0 || !ordinary {
        // A thread that was made real-time or idle from outside keeps its class.
        return;
    }
    attributes.size = size;
    attributes.flags = 0;
    match class {
        ThreadClass::Latency => {
            attributes.policy = libc::SCHED_OTHER as u32;
            attributes.runtime_ns = LATENCY_SLICE_NS;
        }
        ThreadClass::Background => {
            attributes.policy = libc::SCHED_BATCH as u32;
            attributes.nice = (attributes.nice + BACKGROUND_NICE).min(19);
        }
    }
    // SAFETY: the kernel reads `size` bytes of the struct that the pointer names; 0 is the calling
    // thread.
    unsafe {
        libc::syscall(libc::SYS_sched_setattr, 0 as libc::pid_t, &raw const attributes, 0 as libc::c_uint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_background_thread_is_a_batch_thread() {
        let thread = std::thread::Builder::new().spawn(|| {
            ask(ThreadClass::Background);
            let mut attributes = Attributes::default();
            let size = size_of::<Attributes>() as libc::c_uint;
            // SAFETY: as in `ask`.
            let got = unsafe {
                libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0 as libc::c_uint)
            };
            // A sandbox may forbid the call; then there is nothing to check.
            if got == 0 {
                assert_eq!(attributes.policy, libc::SCHED_BATCH as u32);
            }
        });
        thread.unwrap().join().unwrap();
    }
}
