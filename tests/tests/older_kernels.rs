//! Older kernels: with each newer facility switched off, what stands in for it does as well.

use ckpt_tests::{Job, program, survives};

/// A job of several programs that look closely at memory, clocks, ids, signals and files, all at once.
fn close_look(without: &str) -> Job {
    let programs = ["mappings", "clocks", "identity", "signal_handlers", "barrier_and_tls"];
    let script: String =
        programs.iter().map(|name| format!("{} 250 > out.{name} & ", program(name).display())).collect::<String>()
            + "wait; cat out.*";
    Job::new(["bash", "-c", &script]).without(without)
}

survives!(without_pagemap_scan, close_look("pagemap_scan"));
survives!(without_scheduler_notes, close_look("sched"));
survives!(without_the_notes_of_blocked_calls, close_look("syscall"));
survives!(without_a_twin, close_look("twin"));
survives!(shared_memory_without_a_twin, Job::program("posix_shared_memory", 300, &[]).without("twin"));
survives!(system_v_memory_without_a_twin, Job::program("sysv_shared_memory", 300, &[]).own_ipc().without("twin"));
survives!(memory_that_children_do_not_get_without_a_twin, Job::program("mappings", 300, &[]).without("twin"));
survives!(with_another_vdso, close_look("same_vdso"));
survives!(without_a_proc_of_its_own, Job::program("barrier_and_tls", 300, &[]).without("mount_proc"));
survives!(without_droppable_memory, Job::program("droppable_memory", 300, &[]).without("map_droppable"));
survives!(without_guard_pages, Job::program("guard_pages", 300, &["kept"]).without("guard_install"));
survives!(without_a_time_namespace, close_look("time_namespace"));
survives!(
    without_any_newer_facility,
    close_look("pagemap_scan,sched,syscall,twin,same_vdso,map_droppable,guard_install,time_namespace")
);
