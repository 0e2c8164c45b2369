//! What a user of `ckpt-inspect` sees and gets, on an image of a made-up job.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ckpt_image::{Codec, Extent, ImageName, ImageWriter, encode};
use ckpt_objects::clocks::Clocks;
use ckpt_objects::descriptor::FdEntry;
use ckpt_objects::file::{FileIdentity, RegularFile};
use ckpt_objects::job_file::{Contents, FileKind, FileNumber, FileState, JobFile, JobFiles, Role};
use ckpt_objects::memory::{AddressSpace, MemoryPolicy, MmFields};
use ckpt_objects::open_file::{OpenFile, OpenFileKind};
use ckpt_objects::pipe::PipeState;
use ckpt_objects::process::{Life, LiveProcess, ProcessState};
use ckpt_objects::signal::SignalState;
use ckpt_objects::thread::{Scheduling, ThreadSettings, ThreadState};
use ckpt_objects::{FileIndex, FilePath, NsPid, SpaceId};
use ckpt_session::JobState;
use ckpt_session::job::{Interval, JobInfo, Machine, Settings};

const JOB: &str = "00c0ffee00c0ffee";

fn path(text: &str) -> FilePath {
    FilePath::from(Path::new(text))
}

fn thread(tid: i32) -> ThreadState {
    ThreadState {
        tid: NsPid(tid),
        exited: false,
        frame: 0,
        fs_base: 0,
        gs_base: 0,
        clear_child_tid: 0,
        robust_list: (0, 0),
        rseq: None,
        comm: path("worker"),
        pending: Vec::new(),
        scheduling: Scheduling::default(),
        timer_slack_ns: 50_000,
        parent_death_signal: 0,
        no_new_privs: false,
        credentials: None,
        settings: ThreadSettings::default(),
        policy: MemoryPolicy::default(),
    }
}

fn process(pid: i32, ppid: i32, comm: &str, life: Life) -> ProcessState {
    ProcessState {
        pid: NsPid(pid),
        ppid: NsPid(ppid),
        pgid: NsPid(100),
        sid: NsPid(50),
        exit_signal: 17,
        started: 0,
        comm: path(comm),
        life,
    }
}

fn alive(space: u32, threads: std::ops::Range<i32>, files: &[u32]) -> Life {
    let descriptors =
        files.iter().enumerate().map(|(fd, &file)| FdEntry { fd: fd as i32, file: FileIndex(file), close_on_exec: false });
    Life::Alive(Box::new(LiveProcess {
        memory: AddressSpace {
            space: SpaceId(space),
            vmas: Vec::new(),
            guards: Vec::new(),
            fields: MmFields::default(),
            lock_future: 0,
            protection_keys: 0,
            execute_only_key: 0,
        },
        threads: threads.map(thread).collect(),
        descriptors: descriptors.collect(),
        signals: SignalState::default(),
        posix_timers: Vec::new(),
        semaphore_undo: Vec::new(),
        interval_timers: Default::default(),
        has_terminal: false,
        cwd: path("/home/u"),
        removed_cwd: None,
        root: path("/"),
        umask: 0o22,
        limits: Vec::new(),
        credentials: Default::default(),
        oom_score_adj: 0,
        stopped: false,
        settings: Default::default(),
        agent: Default::default(),
    }))
}

fn file(at: &str, role: Role, kind: FileKind) -> JobFile {
    let identity = FileNumber { device: 1, inode: 2, born_ns: 0 };
    let state = FileState { identity, mode: 0o640, uid: 1000, gid: 1000, mtime_ns: 0, ctime_ns: 0, kind };
    JobFile { path: path(at), role, state: Some(state) }
}

fn regular(size: u64, contents: Contents) -> FileKind {
    FileKind::Regular { size, contents }
}

fn state(generation: u64) -> JobState {
    let open = |flags, position, inherited, kind| OpenFile { flags, position, inherited, is_input: false, kind };
    let log = RegularFile { path: path("/home/u/log\u{1b}[2J"), size: 90, device: 1, inode: 2, written: true };
    JobState {
        info: info(generation),
        machine: machine(),
        processes: vec![
            process(100, 99, "bash", alive(1, 100..101, &[0, 1, 1])),
            process(101, 100, "python3", alive(2, 101..105, &[2, 1, 1, 3])),
            process(102, 101, "sort", Life::Zombie { status: 3 << 8 }),
            process(103, 100, "awk", Life::Zombie { status: 9 }),
        ],
        open_files: vec![
            open(0, 0, Some(0), OpenFileKind::Device { path: path("/dev/null"), rdev: 259 }),
            open(0o2001, 0, Some(1), OpenFileKind::Device { path: path("/dev/null"), rdev: 259 }),
            open(0, 0, None, OpenFileKind::Pipe { pipe: 0 }),
            open(0o2001, 90, None, OpenFileKind::Regular(log)),
        ],
        sockets: Vec::new(),
        pipes: vec![PipeState { path: None, capacity: 65536, packets: vec![vec![1, 2, 3]] }],
        locks: Vec::new(),
        signalling: Vec::new(),
        terminals: Default::default(),
        shared_memory: Vec::new(),
        mqueues: Vec::new(),
        system_v: Default::default(),
        programs: Vec::new(),
        mapped_files: vec![FileIdentity {
            path: path("/usr/bin/bash"),
            size: 1_298_416,
            mtime_ns: 0,
            build_id: vec![1],
            deleted: false,
        }],
        files: job_files(),
    }
}

fn info(generation: u64) -> JobInfo {
    JobInfo {
        secret: 0,
        restarted: Vec::new(),
        id: JOB.to_owned(),
        name: "count.sh".to_owned(),
        command: vec![path("bash"), path("count.sh"), path("two words"), path("it's")],
        launch_dir: path("/home/u"),
        launch_dir_is: Default::default(),
        generation,
        launched_at_ns: 0,
        taken_at_ns: 1_795_254_360_000_000_000,
        launcher: NsPid(99),
        launcher_pgid: NsPid(99),
        launcher_sid: NsPid(50),
        first: NsPid(100),
        first_status: None,
        uid: 1000,
        gid: 1000,
        signal: 62,
        environment: Vec::new(),
        env_file: FilePath::default(),
        key: String::new(),
        cost_ns: None,
        settings: Settings {
            interval: Some(Interval::Every(2.5)),
            dir: path("/scratch"),
            keep: 2,
            compress: "zstd:1".to_owned(),
            save_files: vec!["*.dat".to_owned()],
            ..Settings::default()
        },
    }
}

fn machine() -> Machine {
    Machine {
        host: "node12".to_owned(),
        kernel: "6.18.0".to_owned(),
        xcr0: 7,
        cpu_features: vec![1, 2],
        xsave_size: 832,
        clocks: Clocks { monotonic_ns: 1, boottime_ns: 2 },
        boot_id: "b".to_owned(),
        vdso: vec![0x7f; 32],
    }
}

fn job_files() -> JobFiles {
    JobFiles {
        dir: path("/scratch/.ckpt_count.sh_00c0ffee00c0ffee.files"),
        segment: 7,
        log_end: 0,
        files: vec![
            file("/home/u/log\u{1b}[2J", Role::Touched, regular(90, Contents::Held(SpaceId(8)))),
            JobFile { path: path("/home/u/log.tmp"), role: Role::Touched, state: None },
            file("/home/u/table", Role::Read, regular(5000, Contents::Unknown)),
            file("/scratch/a.dat", Role::Named, regular(5000, Contents::Held(SpaceId(9)))),
            file("/scratch/large", Role::Touched, regular(5 << 30, Contents::Hashed(1))),
            file("/scratch/made", Role::Touched, FileKind::Directory),
            file("/scratch/newest", Role::Touched, FileKind::Link { target: path("made/9") }),
        ],
    }
}

fn write_image(dir: &Path, generation: u64) -> PathBuf {
    let name = ImageName::new("count.sh", JOB, generation).expect("a valid job id");
    let writer = ImageWriter::create(dir, &name).expect("create");
    for (space, pages) in [(1, 2_u32), (2, 200)] {
        let raw = vec![7; pages as usize * 4096];
        let extent = Extent { space, address: 0x40_0000, len: pages * 4096, offset: 0 };
        writer.append(&encode(Codec::Zstd(1), &raw), &[extent]).expect("append");
    }
    writer.commit(&postcard::to_stdvec(&state(generation)).expect("serialize")).expect("commit").path
}

fn inspect(arguments: &[&str], images: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckpt-inspect"));
    command.args(arguments).args(images).stdin(Stdio::null()).output().expect("run ckpt-inspect")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn a_summary_shows_the_job_its_processes_and_its_files() {
    let dir = tempfile::tempdir().expect("tempdir");
    let image = write_image(dir.path(), 7);
    let output = inspect(&[], &[&image]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
    let shown = text(&output.stdout).replace(&dir.path().display().to_string(), "DIR");
    let mut lines: Vec<_> = shown.lines().collect();
    let size = lines.remove(6);
    assert!(size.starts_with("  size        ") && size.contains("pages 808 KiB → ") && size.contains(", 2 chunks"), "{size}");
    let expected = r#"DIR/ckpt_count.sh_00c0ffee00c0ffee_000007.img
  job         count.sh 00c0ffee00c0ffee, checkpoint 7
  command     bash count.sh 'two words' "it's"
  launched in /home/u
  taken       2026-11-21T09:46:00Z on node12 (Linux 6.18.0)
  settings    checkpoints every 2.5 s in /scratch, 2 kept, zstd:1
  processes   4, 5 threads
        PID    PPID THREADS DESCRIPTORS       PAGES  NAME
        100      99       1           3     8.0 KiB  bash
        101     100       4           4     800 KiB    python3
        102     101       -           -           -      sort (exited with code 3)
        103     100       -           -           -    awk (killed by signal 9)
  open files  4, 7 descriptors
      1 x read         the launcher's standard input
      4 x append       the launcher's standard output
      1 x read         pipe [0], 3 bytes in it
      1 x append       /home/u/log\u{1b}[2J, at 90 of 90 bytes
  mapped files 1
        1.2 MiB  /usr/bin/bash
  files of the job 7 (--save-files *.dat)
           90 B  touched   0640 /home/u/log\u{1b}[2J
           gone  touched        /home/u/log.tmp
        4.9 KiB  only read 0640 /home/u/table (contents not held)
        4.9 KiB  named     0640 /scratch/a.dat
        5.0 GiB  touched   0640 /scratch/large (hash only)
      directory  touched   0640 /scratch/made
           link  touched   0640 /scratch/newest -> made/9"#;
    assert_eq!(lines.join("\n"), expected);
}

#[test]
fn verify_says_ok_for_each_image_and_names_the_damaged_one() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (first, second) = (write_image(dir.path(), 1), write_image(dir.path(), 2));
    let output = inspect(&["--verify"], &[&first, &second]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout).lines().filter(|line| line.contains(".img: ok, 3 chunks, 202 pages")).count(), 2);

    let mut bytes = fs::read(&first).expect("read");
    bytes[130] ^= 1;
    fs::write(&first, bytes).expect("write");
    // The pages are not read for a summary, so only `--verify` notices.
    assert_eq!(inspect(&[], &[&first]).status.code(), Some(0));
    let output = inspect(&["--verify"], &[&first, &second]);
    assert_eq!(output.status.code(), Some(124));
    assert_eq!(text(&output.stdout).lines().count(), 1);
    let complaint = text(&output.stderr);
    assert!(
        complaint.starts_with("ckpt: ") && complaint.contains("_000001.img is damaged: the checksum of chunk 0"),
        "{complaint}"
    );
    assert_eq!(complaint.lines().count(), 1);
}

#[test]
fn json_holds_the_whole_state_on_one_line() {
    let dir = tempfile::tempdir().expect("tempdir");
    let image = write_image(dir.path(), 3);
    let absent = dir.path().join("absent");
    let output = inspect(&["--json", "--verify"], &[&image, &absent]);
    assert_eq!(output.status.code(), Some(124));
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["valid"], &lines[0]["verified"]), (&true.into(), &true.into()));
    assert_eq!(lines[0]["sizes"]["pages"], 202 * 4096);
    assert_eq!(lines[0]["sizes"]["spaces"]["2"], 200 * 4096);
    assert_eq!(lines[0]["state"]["info"]["generation"], 3);
    assert_eq!(lines[0]["state"]["processes"][1]["comm"], "python3");
    assert_eq!(lines[0]["state"]["processes"][1]["life"]["Alive"]["threads"][0]["tid"], 101);
    // What a program reads is what the image holds.
    let state: JobState = serde_json::from_value(lines[0]["state"].clone()).expect("a state");
    assert_eq!(state.open_files[3].kind, self::state(3).open_files[3].kind);
    assert_eq!(lines[1]["valid"], false);
    assert!(lines[1]["error"].as_str().is_some_and(|error| error.contains("absent")));
}

#[test]
fn what_is_no_image_is_named_with_the_reason() {
    let dir = tempfile::tempdir().expect("tempdir");
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).expect("write");
        path
    };
    let whole = fs::read(write_image(dir.path(), 1)).expect("read");
    let name = ImageName::new("x", JOB, 9).expect("valid");
    let nonsense = ImageWriter::create(dir.path(), &name).expect("create").commit(&[0xff; 40]).expect("commit").path;
    for (path, reason) in [
        (write("empty", b""), "is empty: it was not completed"),
        (write("cut", &whole[..whole.len() / 2]), "was not completed or has been cut off"),
        (write("foreign", b"\x7fELF\x02\x01\x01"), "is not a checkpoint image"),
        (dir.path().to_owned(), "is not a regular file"),
        (dir.path().join("absent"), "failed to read"),
        (nonsense, "holds no job that this release knows"),
    ] {
        let output = inspect(&[], &[&path]);
        assert_eq!(output.status.code(), Some(124), "{reason}");
        assert_eq!(text(&output.stdout), "");
        let complaint = text(&output.stderr);
        assert!(complaint.contains(reason) && complaint.contains(&path.display().to_string()), "{complaint}");
    }
}

#[test]
fn bad_usage_has_its_own_exit_code() {
    for arguments in [&[][..], &["--no-such-option", "x"]] {
        let output = inspect(arguments, &[]);
        assert_eq!(output.status.code(), Some(120));
        assert!(text(&output.stderr).contains("Usage:"));
    }
    for argument in ["--help", "--version"] {
        assert_eq!(inspect(&[argument], &[]).status.code(), Some(0));
    }
    assert!(text(&inspect(&["--help"], &[]).stdout).contains("124  an image cannot be read"));
}

#[test]
fn a_reader_that_goes_away_is_no_reason_to_panic() {
    let dir = tempfile::tempdir().expect("tempdir");
    let image = write_image(dir.path(), 1);
    for arguments in ["", "--json", "--verify"] {
        let mut command = Command::new("/bin/sh");
        // The first command waits until the last has gone.
        let script = r#"{ sleep 0.2; "$0" $1 "$2"; echo "code $?" >&2; } | true"#;
        command.args(["-c", script, env!("CARGO_BIN_EXE_ckpt-inspect"), arguments]).arg(&image);
        assert_eq!(text(&command.output().expect("run sh").stderr), "code 125\n", "{arguments}");
    }
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("open");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckpt-inspect"));
    let output =
        command.arg(&image).stdout(full).stderr(Stdio::piped()).spawn().expect("spawn").wait_with_output().expect("wait");
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("failed to write to standard output: No space left"));
}
