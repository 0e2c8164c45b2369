//! Bad input: each kind ends in one line that names the thing, says why, and what to do; the job, where there is one, does
//! not notice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ckpt_image::{Codec, ImageName, ImageReader, ImageWriter, encode};
use ckpt_session::JobState;
use ckpt_tests::job::{IMAGES, await_image};
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, Sandbox, artifacts, as_either, not_run, tool};

/// The exit codes of the tools' own faults, as `--help` documents them.
const BAD_USAGE: i32 = 120;
const CANNOT_LAUNCH: i32 = 121;
const CANNOT_RESTORE: i32 = 122;
const IMAGE_INVALID: i32 = 124;

as_either! {
    static_program program_for_32_bits program_that_does_not_exist program_that_cannot_be_run
    directory_that_cannot_be_made directory_that_cannot_be_written directory_that_is_full
    image_that_does_not_exist image_cut_off image_empty image_of_something_else image_with_flipped_bits images_of_two_jobs
    open_file_gone open_file_shrunk
    machine_without_a_feature_of_the_processor machine_with_less_register_state
}

/// A tool's messages name all of these, and each is one line that begins as promised.
#[track_caller]
fn says(messages: &str, pieces: &[&str]) {
    let found = messages.lines().any(|line| line.starts_with("ckpt: ") && pieces.iter().all(|piece| line.contains(piece)));
    assert!(found, "no line of the tool holds all of {pieces:?}:\n{messages}");
    assert!(!messages.contains("panicked"), "{messages}");
}

/// Runs a tool to its end, expects this exit code and a line with these pieces, and nothing on standard output.
#[track_caller]
fn fails(sandbox: &Sandbox, command: Command, code: i32, pieces: &[&str]) {
    let (found, out, err) = sandbox.finish(command);
    assert_eq!(found, code, "the exit code\n{err}");
    assert_eq!(out, "", "standard output is the job's");
    says(&err, pieces);
}

/// A restart of these images.
fn restart(sandbox: &Sandbox, images: &[PathBuf]) -> Command {
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.args(images);
    command
}

/// The name of a file, as text.
fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a name that is text")
}

/// A job that cannot be checkpointed runs to its end as if nothing were; each checkpoint fails with such a line.
#[track_caller]
fn runs_on(job: &Job, identity: Identity, out: &str, code: i32, pieces: &[&str]) {
    let sandbox = job.sandbox(identity);
    let start = Instant::now();
    let mut running = job.launch(&sandbox);
    assert_eq!(running.wait(BOUND), code, "{}", running.stderr());
    assert_eq!(sandbox.read_text("out"), out, "{}", running.stderr());
    // It takes a second and a half: nothing of it was kept frozen for long.
    assert!(start.elapsed() < Duration::from_secs(6), "the job took {:?}\n{}", start.elapsed(), running.stderr());
    says(&running.stderr(), pieces);
    assert!(sandbox.images(IMAGES).is_empty(), "there is an image");
    assert_eq!(fs::read_dir(sandbox.join(IMAGES)).expect("the folder").count(), 0, "something was left behind");
}

fn static_program(identity: Identity) {
    let program = artifacts::compile("static_program", &["-static"]);
    runs_on(&Job::new([&program]), identity, "untouched\n", 7, &["no checkpoint", "static"]);
    runs_on(
        &Job::new([program.as_os_str(), "catches all".as_ref()]),
        identity,
        "untouched\n",
        7,
        &["no checkpoint", "statically linked"],
    );
    // One static program among others spoils the checkpoint of all, and is the one that is named.
    let script = format!("sleep 0.5 & {}; wait", program.display());
    runs_on(
        &Job::new(["bash", "-c", &script]),
        identity,
        "untouched\n",
        0,
        &["no checkpoint", "(static_program-)", "statically linked"],
    );
}

fn program_for_32_bits(identity: Identity) {
    match artifacts::try_compile("static_program", &["-m32"]) {
        Ok(program) => {
            runs_on(&Job::new([&program]), identity, "untouched\n", 7, &["no checkpoint", "(static_program-)", "32-bit"])
        }
        Err(error) => not_run(&format!("the compiler makes no programs for 32 bits: {error}")),
    }
}

/// A set-uid program starts without the agent, and with rights that the agent must not have.
#[test]
fn set_uid_program() {
    if Identity::own() != Identity::Root {
        return not_run("needs root, to make a program of root's that an ordinary user runs");
    }
    let sandbox = Sandbox::new(Identity::User);
    let program = sandbox.write("set-uid", fs::read(artifacts::compile("static_program", &["-O2"])).expect("the program"));
    std::os::unix::fs::chown(&program, Some(0), Some(0)).expect("chown as root");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("chmod as root");
    runs_on(&Job::new([&program]), Identity::User, "untouched\n", 7, &["no checkpoint", "set-uid"]);
}

fn program_that_does_not_exist(identity: Identity) {
    let sandbox = Sandbox::new(identity);
    for program in ["./does-not-exist", "does-not-exist-on-the-path"] {
        let mut command = sandbox.command(tool("ckpt-launch"));
        command.args(["-i", "1", "--", program, "argument"]);
        fails(&sandbox, command, CANNOT_LAUNCH, &[program, "o such file"]);
    }
}

fn program_that_cannot_be_run(identity: Identity) {
    let sandbox = Sandbox::new(identity);
    let file = sandbox.write("not-executable", "text");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("chmod");
    for program in ["./not-executable", "/tmp"] {
        let mut command = sandbox.command(tool("ckpt-launch"));
        command.args(["--", program]);
        fails(&sandbox, command, CANNOT_LAUNCH, &[program, "ermission denied"]);
    }
}

fn directory_that_cannot_be_made(identity: Identity) {
    let sandbox = Sandbox::new(identity);
    sandbox.write("a-file", "text");
    let mut command = sandbox.command(tool("ckpt-launch"));
    command.args(["-i", "1", "-d", "a-file/images", "--", "touch", "it-ran"]);
    fails(&sandbox, command, CANNOT_LAUNCH, &["a-file/images", "ot a directory", "--dir"]);
    assert!(!sandbox.join("it-ran").exists(), "the job was started all the same");
}

fn directory_that_cannot_be_written(identity: Identity) {
    let sandbox = Sandbox::new(identity);
    let locked = sandbox.make_dir("locked");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).expect("chmod");
    let launch = tool("ckpt-launch");
    let (command, reason) = if identity == Identity::Root {
        // Root may write anywhere but where nobody can.
        let mut command = sandbox.command("unshare");
        command.args(["-m", "sh", "-c", r#"mount -t tmpfs -o ro read-only locked && exec "$0" "$@""#]).arg(launch);
        (command, "ead-only file system")
    } else {
        (sandbox.command(launch), "ermission denied")
    };
    let mut command = command;
    command.args(["-i", "1", "-d", "locked", "--", "touch", "it-ran"]);
    fails(&sandbox, command, CANNOT_LAUNCH, &["locked", reason, "--dir"]);
    assert!(!sandbox.join("it-ran").exists(), "the job was started all the same");
}

/// A script that mounts a small memory file system over the folder of images, in namespaces of its own, and then goes on as
/// the user that called it.
const SMALL_MOUNT: &str =
    r#"mount -t tmpfs -o size=64k,mode=777 small images && exec setpriv --inh-caps=-all --ambient-caps=-all "$0" "$@""#;

fn directory_that_is_full(identity: Identity) {
    let job = Job::new([
        "bash",
        "-c",
        "x=$(head -c 1000000 /dev/urandom | base64 -w 0); for i in {1..15}; do echo $i; sleep 0.1; done; echo ${#x}",
    ]);
    let plain = job.run_plain(identity);
    let sandbox = job.sandbox(identity);
    let launch = job.launch_command(&sandbox, "0.3");
    let mut command = sandbox.command("unshare");
    if identity == Identity::Root {
        command.arg("-m");
    } else {
        command.args(["-U", "--map-current-user", "--keep-caps", "-m"]);
    }
    command.args(["sh", "-c", SMALL_MOUNT]).arg(launch.get_program()).args(launch.get_args());
    let mut running = sandbox.start(command, "out", false, "err.0");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert_eq!(sandbox.read("out"), plain.stdout);
    says(&running.stderr(), &["no checkpoint", "images", "o space left", "--dir"]);
}

/// A job that is killed after its first image, in a sandbox.
fn killed(identity: Identity) -> (Sandbox, PathBuf) {
    let job = Job::new(["bash", "-c", "for i in {1..100}; do echo $i; sleep 0.02; done"]);
    let sandbox = job.sandbox(identity);
    let images = job.killed(&sandbox);
    for image in &images[..images.len() - 1] {
        fs::remove_file(image).expect("removed");
    }
    let newest = images.last().expect("an image").clone();
    (sandbox, newest)
}

fn image_that_does_not_exist(identity: Identity) {
    let sandbox = Sandbox::new(identity);
    fails(&sandbox, restart(&sandbox, &["ckpt_*.img".into()]), IMAGE_INVALID, &["ckpt_*.img", "o such file"]);
}

fn image_cut_off(identity: Identity) {
    let (sandbox, image) = killed(identity);
    let whole = fs::read(&image).expect("the image");
    for length in [whole.len() - 1, whole.len() / 2, 100, 10] {
        fs::write(&image, &whole[..length]).expect("cut off");
        fails(&sandbox, restart(&sandbox, std::slice::from_ref(&image)), IMAGE_INVALID, &[name(&image), "was not completed"]);
    }
    // Nothing has been harmed by the attempts.
    fs::write(&image, &whole).expect("whole again");
    assert_eq!(sandbox.finish(restart(&sandbox, &[image])).0, 0);
}

fn image_empty(identity: Identity) {
    let (sandbox, image) = killed(identity);
    fs::write(&image, "").expect("emptied");
    fails(&sandbox, restart(&sandbox, std::slice::from_ref(&image)), IMAGE_INVALID, &[name(&image), "is empty"]);
}

fn image_of_something_else(identity: Identity) {
    let sandbox = Sandbox::new(identity);
    let picture = sandbox.write("ckpt_picture_0123456789abcdef_000001.img", "not an image\n".repeat(10_000));
    fails(
        &sandbox,
        restart(&sandbox, std::slice::from_ref(&picture)),
        IMAGE_INVALID,
        &[name(&picture), "is not a checkpoint image"],
    );
    fails(&sandbox, restart(&sandbox, &["/".into()]), IMAGE_INVALID, &["/ is not a regular file"]);
}

fn image_with_flipped_bits(identity: Identity) {
    let (sandbox, image) = killed(identity);
    let whole = fs::read(&image).expect("the image");
    let mut moments = fastrand::Rng::with_seed(ckpt_tests::job::seed());
    let mut places: Vec<usize> = (0..6).map(|_| moments.usize(..whole.len())).collect();
    places.extend([0, 20, whole.len() - 1, whole.len() - 40]);
    for place in places {
        let mut damaged = whole.clone();
        damaged[place] ^= 1 << moments.u32(..8);
        fs::write(&image, damaged).expect("damaged");
        eprintln!("byte {place} of {}", whole.len());
        fails(&sandbox, restart(&sandbox, std::slice::from_ref(&image)), IMAGE_INVALID, &[name(&image)]);
    }
    fs::write(&image, &whole).expect("whole again");
    assert_eq!(sandbox.finish(restart(&sandbox, &[image])).0, 0);
}

fn images_of_two_jobs(identity: Identity) {
    let (first_box, first) = killed(identity);
    let (second_box, second) = killed(identity);
    let pieces = ["2 jobs", name(&first), name(&second)];
    fails(&first_box, restart(&first_box, &[first.clone(), second.clone()]), IMAGE_INVALID, &pieces);
    drop(second_box);
}

/// A job that reads one file and writes another, both too large for the image, killed after its first image.
fn with_open_files(identity: Identity) -> (Job, Sandbox, Vec<PathBuf>) {
    let script =
        "while read -r line; do [[ $line == end ]] && break; echo $line; echo $line >&4; sleep 0.02; done < data 4>> written";
    let large = "x".repeat(2 << 20);
    let data: String = (1..=100).map(|i| format!("{i}\n")).chain(["end\n".to_owned(), large.clone()]).collect();
    let job = Job::new(["bash", "-c", script]).file("data", data).file("written", large).leaves("written");
    let job = job.option("--file-budget").option("1MiB");
    let sandbox = job.sandbox(identity);
    sandbox.make_dir("elsewhere");
    let images = job.killed(&sandbox);
    (job, sandbox, images)
}

fn open_file_gone(identity: Identity) {
    let (job, sandbox, images) = with_open_files(identity);
    for file in ["data", "written"] {
        let (path, aside) = (sandbox.join(file), sandbox.join("elsewhere/file"));
        fs::rename(&path, &aside).expect("moved aside");
        let before = sandbox.read("written");
        fails(&sandbox, restart(&sandbox, &images), CANNOT_RESTORE, &[path.to_str().expect("text"), "is gone"]);
        assert!(!path.exists(), "{file} was made anew");
        assert_eq!(sandbox.read("written"), before, "a restart that was refused changed a file");
        fs::rename(&aside, &path).expect("moved back");
    }
    let plain = job.run_plain(identity);
    let code = job.restart(&sandbox, &images, 1).wait(BOUND);
    job.compare(&plain, &job.output(&sandbox, code, 2));
}

fn open_file_shrunk(identity: Identity) {
    let (job, sandbox, images) = with_open_files(identity);
    for file in ["data", "written"] {
        let path = sandbox.join(file);
        let whole = sandbox.read(file);
        fs::write(&path, &whole[..2]).expect("shrunk");
        fails(&sandbox, restart(&sandbox, &images), CANNOT_RESTORE, &[path.to_str().expect("text"), "has only 2"]);
        assert_eq!(sandbox.read(file), &whole[..2], "a restart that was refused changed the file");
        fs::write(&path, whole).expect("grown back");
    }
    let plain = job.run_plain(identity);
    let code = job.restart(&sandbox, &images, 1).wait(BOUND);
    job.compare(&plain, &job.output(&sandbox, code, 2));
}

/// Rewrites an image with other metadata, as if it had been taken elsewhere.
fn forge(image: &Path, change: impl FnOnce(&mut JobState)) {
    let reader = ImageReader::open(image).expect("a good image");
    let mut state: JobState = postcard::from_bytes(reader.metadata()).expect("the state of a job");
    change(&mut state);
    let name = ImageName::parse(image).expect("the name of an image");
    let dir = tempfile::tempdir_in(image.parent().expect("a folder")).expect("a folder");
    let writer = ImageWriter::create(dir.path(), &name).expect("a new image");
    let mut raw = Vec::new();
    for chunk in 0..reader.page_chunks().len() {
        let chunk = u32::try_from(chunk).expect("few chunks");
        reader.read_chunk(chunk, &mut raw).expect("a good chunk");
        let extents: Vec<_> =
            reader.extents().iter().filter(|placed| placed.chunk == chunk).map(|placed| placed.extent).collect();
        writer.append(&encode(Codec::Zstd(1), &raw), &extents).expect("written");
    }
    let forged = writer.commit(&postcard::to_stdvec(&state).expect("encoded")).expect("written").path;
    // The bytes go into the old file, which its user owns.
    fs::write(image, fs::read(forged).expect("the forged image")).expect("written");
}

fn machine_without_a_feature_of_the_processor(identity: Identity) {
    let (sandbox, image) = killed(identity);
    let whole = fs::read(&image).expect("the image");
    forge(&image, |_| ());
    assert_eq!(sandbox.finish(restart(&sandbox, std::slice::from_ref(&image))).0, 0, "forging itself does no harm");
    // That run may have written newer generations, and pruned this one.
    fs::write(&image, whole).expect("the image again");
    identity.own_path(&image);
    forge(&image, |state| {
        // Every word has bits that no processor sets: reserved ones, or of another maker's.
        state.machine.cpu_features.iter_mut().for_each(|word| *word = u32::MAX);
        state.machine.host = "another-node".to_owned();
    });
    fails(&sandbox, restart(&sandbox, std::slice::from_ref(&image)), CANNOT_RESTORE, &["processor lacks", "another-node"]);
}

fn machine_with_less_register_state(identity: Identity) {
    let (sandbox, image) = killed(identity);
    forge(&image, |state| state.machine.xcr0 |= 1 << 62);
    fails(&sandbox, restart(&sandbox, std::slice::from_ref(&image)), CANNOT_RESTORE, &["processor lacks", "XCR0"]);
}

/// Where the administrator allows no user namespaces, an ordinary user is told which setting forbids it.
#[test]
fn no_user_namespaces() {
    let (sandbox, image) = killed(Identity::User);
    // In a user namespace of its own that has spent its allowance: with the caller's ids, and no capability in the end.
    let script = r#"echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --inh-caps=-all --ambient-caps=-all "$0" "$@""#;
    let mut command = sandbox.command("unshare");
    command.args(["-U", "--map-current-user", "--keep-caps", "sh", "-c", script]).arg(tool("ckpt-restart")).arg(&image);
    fails(&sandbox, command, CANNOT_RESTORE, &["namespaces", "user.max_user_namespaces"]);
    // Launching and checkpointing need none.
    let job = Job::new(["bash", "-c", "for i in {1..10}; do echo $i; sleep 0.1; done"]);
    let sandbox = job.sandbox(Identity::User);
    let launch = job.launch_command(&sandbox, "0.2");
    let mut command = sandbox.command("unshare");
    command
        .args(["-U", "--map-current-user", "--keep-caps", "sh", "-c", script])
        .arg(launch.get_program())
        .args(launch.get_args());
    let mut running = sandbox.start(command, "out", false, "err.0");
    await_image(&sandbox, &mut running, None);
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
}

/// What is wrong on the command line is said in words, and nothing is started.
#[test]
fn command_line_that_makes_no_sense() {
    let sandbox = Sandbox::new(Identity::own());
    let cases: &[(&str, &[&str], &str)] = &[
        ("ckpt-launch", &["--no-such-option", "touch", "it-ran"], "--no-such-option"),
        ("ckpt-launch", &[], "COMMAND"),
        ("ckpt-launch", &["-i", "never", "touch", "it-ran"], "never"),
        ("ckpt-launch", &["-i", "-5", "touch", "it-ran"], "-5"),
        ("ckpt-launch", &["-i", "0", "touch", "it-ran"], "0"),
        ("ckpt-launch", &["--keep", "0", "touch", "it-ran"], "0"),
        ("ckpt-launch", &["--compress", "zip", "touch", "it-ran"], "zip"),
        ("ckpt-launch", &["--compress", "zstd:99", "touch", "it-ran"], "99"),
        ("ckpt-restart", &[], "IMAGE"),
        ("ckpt-restart", &["--no-such-option", "x.img"], "--no-such-option"),
        ("ckpt-restart", &["--map", "nowhere", "x.img"], "nowhere"),
        ("ckpt-inspect", &[], "IMAGE"),
        ("ckpt-ctl", &["dance"], "dance"),
    ];
    for (program, args, piece) in cases {
        let mut command = sandbox.command(tool(program));
        command.args(*args);
        let (code, out, err) = sandbox.finish(command);
        assert_eq!((code, out.as_str()), (BAD_USAGE, ""), "{program} {args:?}\n{err}");
        assert!(err.contains(piece), "{program} {args:?} does not name {piece}:\n{err}");
        assert!(!sandbox.join("it-ran").exists(), "{program} {args:?} ran the command");
    }
}

/// The death of the coordinator is not the death of the job.
#[test]
fn killed_launcher_leaves_the_job_running() {
    let job = Job::new(["bash", "-c", "for i in {1..100}; do echo $i; sleep 0.02; done; echo done > done"]);
    let plain = job.run_plain(Identity::own());
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    await_image(&sandbox, &mut running, None);
    running.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(running.wait(BOUND), 137);
    running.until("the end of the job", BOUND, |_| sandbox.join("done").exists().then_some(()));
    assert_eq!(sandbox.read("out"), plain.stdout);
}

/// The launcher is killed in the middle of a checkpoint, again and again: the job runs on, and no image is half of one.
#[test]
fn launcher_killed_during_a_checkpoint_leaves_the_job_running() {
    let seed = ckpt_tests::job::seed();
    let mut moments = fastrand::Rng::with_seed(seed);
    // Some memory that takes a while to write.
    let script = "x=$(head -c 30000000 /dev/urandom | base64 -w 0); : > ready; for i in {1..60}; do echo $i; sleep 0.02; done; echo ${#x}; : > done";
    for _ in 0..4 {
        let job = Job::new(["bash", "-c", script]).interval("0.05");
        let sandbox = job.sandbox(Identity::own());
        let mut running = job.launch(&sandbox);
        running.until("the job to be large", BOUND, |_| sandbox.join("ready").exists().then_some(()));
        std::thread::sleep(Duration::from_millis(moments.u64(0..400)));
        running.signal(nix::sys::signal::Signal::SIGKILL);
        running.until("the end of the job", BOUND, |_| sandbox.join("done").exists().then_some(()));
        let lines: String = (1..=60).map(|i| format!("{i}\n")).collect();
        assert_eq!(sandbox.read_text("out"), format!("{lines}40000000\n"));
        for image in sandbox.images(IMAGES) {
            let mut command = sandbox.command(tool("ckpt-inspect"));
            command.arg("--verify").arg(&image);
            let (code, _, err) = sandbox.finish(command);
            assert_eq!(code, 0, "{err}");
        }
    }
}
