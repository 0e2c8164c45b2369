//! System V IPC: shared memory, semaphores, message queues; and POSIX message queues.

use ckpt_tests::job::IMAGES;
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, program, program_survives, survives, tool};

/// Objects made by processes that have ended: nobody holds anything of them.
const MADE_BY_COMMANDS: &str = r#"
made() { grep -o '[0-9]*$'; }
memory=$(ipcmk -M 1000 | made) semaphores=$(ipcmk -S 3 | made) queue=$(ipcmk -Q | made)
for i in $(seq 40); do
    sleep 0.05
    ipcs -m -i $memory | grep -q bytes=1000 || echo memory lost
    ipcs -s -i $semaphores | grep -q 'nsems = 3' || echo semaphores lost
    ipcs -q -i $queue | grep -q qnum=0 || echo queue lost
done
ipcs | grep -c "$(id -un || id -u)"
ipcrm -m $memory -s $semaphores -q $queue && echo removed
"#;

survives!(made_by_commands, Job::script("bash", MADE_BY_COMMANDS).own_ipc());

/// A job that uses what somebody else made before it is refused by name, and runs on.
#[test]
fn what_others_made_is_refused() {
    let uses = [
        ("-M 4096", "memory", "uses System V shared memory"),
        ("-S 2", "semaphores", "uses a System V semaphore set"),
        ("-Q", "queue", "uses a System V message queue"),
    ];
    for (make, kind, named) in uses {
        let sandbox = Job::default().sandbox(Identity::own());
        let mut command = sandbox.command("unshare");
        let script = format!(
            "id=$(ipcmk {make} | grep -o '[0-9]*$'); exec {} -i 0.1 -d {IMAGES} -- {} {kind} $id",
            tool("ckpt-launch").display(),
            program("foreign_ipc").display()
        );
        command.args(["--ipc", "bash", "-c", &script]);
        if Identity::own() == Identity::User {
            command = sandbox.command("unshare");
            command.args(["--user", "--map-current-user", "--ipc", "bash", "-c", &script]);
        }
        let mut running = sandbox.start(command, "out", false, "err.0");
        let code = running.wait(BOUND);
        let messages = running.stderr();
        assert_eq!((code, sandbox.read_text("out").as_str()), (0, "untouched\n"), "{messages}");
        assert!(messages.lines().any(|line| line.starts_with("ckpt: no checkpoint") && line.contains(named)), "{messages}");
        assert!(sandbox.images(IMAGES).is_empty(), "there is an image");
    }
}

program_survives!(shared_memory, Job::program("sysv_shared_memory", 300, &[]).own_ipc());
program_survives!(semaphores, Job::program("sysv_semaphores", 300, &[]).own_ipc());
program_survives!(messages, Job::program("sysv_messages", 300, &[]).own_ipc());
program_survives!(posix_queues, Job::program("posix_queues", 300, &[]).own_ipc());
