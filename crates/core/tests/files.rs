//! The files of a checkpoint as files: pipes, links, changes while they are open, and the fingerprint.
#![cfg(unix)]

mod common;

use common::*;
use logit_prism_core::cancel::Cancel;
use logit_prism_core::checkpoint::{StoredFile, read_small};
use logit_prism_core::run::Job;
use logit_prism_core::session::{LoadOptions, Session};
use logit_prism_core::{PrismError, Result};
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// `CHECKPOINT_INVALID` because of what `found` says.
#[track_caller]
fn invalid(error: PrismError, found: &str) {
    assert_eq!(error.code(), "CHECKPOINT_INVALID", "{error}");
    assert!(error.details()["found"].as_str().unwrap().contains(found), "expected {found:?} in {error}");
}

/// The error of loading, which must come at once: opening a pipe without a writer waits for ever.
#[track_caller]
fn refusal_in_time(dir: &Path) -> PrismError {
    let (sent, received) = channel();
    let path = dir.to_path_buf();
    std::thread::spawn(move || sent.send(load(&path).map(drop)));
    error(received.recv_timeout(Duration::from_secs(20)).expect("loading waits for a pipe"))
}

// ---- what is no file ----

#[test]
fn pipes_and_directories_are_no_files() {
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let dir = TempDir::copy_of("gpt2");
        let _ = fs::remove_file(dir.join(name));
        assert!(Command::new("mkfifo").arg(dir.join(name)).status().unwrap().success());
        invalid(refusal_in_time(&dir.0), "not a regular file");
        fs::remove_file(dir.join(name)).unwrap();
        fs::create_dir(dir.join(name)).unwrap();
        invalid(refusal_in_time(&dir.0), "not a regular file");
    }
    let dir = TempDir::copy_of("gpt2");
    fs::remove_file(dir.join("config.json")).unwrap();
    let _socket = UnixListener::bind(dir.join("config.json")).unwrap(); // cannot be opened at all
    invalid(refusal_in_time(&dir.0), "not a regular file");
    let dir = TempDir::copy_of("gpt2_sharded");
    let shard = dir.join("model-00002-of-00005.safetensors");
    fs::remove_file(&shard).unwrap();
    assert!(Command::new("mkfifo").arg(&shard).status().unwrap().success());
    invalid(refusal_in_time(&dir.0), "not a regular file");
}

/// What takes the place of a file by a rename, over and over, until the returned flag is set.
fn swapped(a: PathBuf, b: PathBuf, place: PathBuf) -> (Arc<AtomicBool>, JoinHandle<()>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let swap = move || {
        for i in 0.. {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            let (from, spare) = if i % 2 == 0 { (&a, a.with_extension("new")) } else { (&b, b.with_extension("new")) };
            let _ = fs::hard_link(from, &spare).or_else(|_| symlink(fs::read_link(from)?, &spare));
            let _ = fs::rename(&spare, &place);
        }
    };
    (stop, std::thread::spawn(swap))
}

/// A file whose place is taken by `other` between the look at it and its opening: opened 20,000 times, it is found to be
/// one of the two each time, and never waited for.
fn race(other: impl FnOnce(&Path)) -> Vec<Result<u64>> {
    let dir = TempDir::new();
    dir.write("file", "0123456789");
    other(&dir.join("other"));
    dir.write("place", "0123456789");
    let (stop, swapping) = swapped(dir.join("file"), dir.join("other"), dir.join("place"));
    let (sent, received) = channel();
    let path = dir.0.clone();
    std::thread::spawn(move || {
        let open = |_| StoredFile::open(&path, "place").map(|file| file.length);
        sent.send((0..20_000).map(open).collect::<Vec<_>>())
    });
    let outcomes = received.recv_timeout(Duration::from_secs(30));
    stop.store(true, Ordering::Relaxed);
    swapping.join().unwrap();
    outcomes.expect("opening waits for a pipe")
}

/// What was opened was the file of 10 bytes, and nothing else.
#[track_caller]
fn opened_are_the_file(outcomes: &[Result<u64>]) {
    let opened: Vec<u64> = outcomes.iter().flatten().copied().collect();
    assert!(opened.len() > 100 && opened.len() < 19_900, "{} of 20000: there was no race", opened.len());
    assert!(opened.iter().all(|length| *length == 10), "what took the file's place was opened");
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
    let outcomes = race(|path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()));
    opened_are_the_file(&outcomes);
    outcomes.into_iter().filter_map(|o| o.err()).for_each(|e| invalid(e, "not a regular file"));
}

#[test]
fn a_link_in_the_place_of_a_file_is_not_followed() {
    let secret = TempDir::new();
    secret.write("secret", "longer than the file");
    let outcomes = race(|path| symlink(secret.join("secret"), path).unwrap());
    opened_are_the_file(&outcomes);
}

// ---- links ----

/// The fixture as the Hugging Face cache keeps it: `repo/snapshots/abc/name → ../../blobs/hash`.
fn cached(root: &TempDir) -> PathBuf {
    let (blobs, snapshot) = (root.join("repo/blobs"), root.join("repo/snapshots/abc"));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    for (name, hash) in [("config.json", "c0ffee"), ("model.safetensors", "5eed")] {
        fs::copy(fixture("gpt2").join(name), blobs.join(hash)).unwrap();
        symlink(format!("../../blobs/{hash}"), snapshot.join(name)).unwrap();
    }
    snapshot
}

#[test]
fn links_of_the_hugging_face_cache_are_followed() {
    let root = TempDir::new();
    let snapshot = cached(&root);
    load(&snapshot).unwrap();
    symlink(&snapshot, root.join("shortcut")).unwrap(); // the directory itself may be reached by a link
    load(&root.join("shortcut")).unwrap();

    let (root, shards) = (TempDir::new(), fixture("gpt2_sharded"));
    let (blobs, snapshot) = (root.join("repo/blobs"), root.join("repo/snapshots/abc"));
    [&blobs, &snapshot].iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
    for (hash, entry) in fs::read_dir(&shards).unwrap().enumerate() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), blobs.join(hash.to_string())).unwrap();
        symlink(format!("../../blobs/{hash}"), snapshot.join(entry.file_name())).unwrap();
    }
    assert_eq!(load(&snapshot).unwrap().fingerprint().unwrap(), load(&shards).unwrap().fingerprint().unwrap());
}

#[test]
fn other_links_are_refused() {
    let elsewhere = TempDir::copy_of("gpt2");
    for name in ["config.json", "model.safetensors"] {
        let targets = [
            elsewhere.join(name),                       // another directory
            PathBuf::from("copy"),                      // the same directory
            PathBuf::from("../../blobs/deep/5eed"),     // deeper than blobs
            PathBuf::from("../../../other/blobs/5eed"), // another repository's blobs
            PathBuf::from("../../blobs"),               // no file
            PathBuf::from("../../blobs/dir"),
        ];
        for target in targets {
            let root = TempDir::new();
            let snapshot = cached(&root);
            for dir in ["repo/blobs/deep", "repo/blobs/dir", "other/blobs"] {
                fs::create_dir_all(root.join(dir)).unwrap();
                fs::copy(fixture("gpt2").join(name), root.join(dir).join("5eed")).unwrap();
            }
            fs::copy(fixture("gpt2").join(name), snapshot.join("copy")).unwrap();
            fs::remove_file(snapshot.join(name)).unwrap();
            symlink(&target, snapshot.join(name)).unwrap();
            invalid(refusal_in_time(&snapshot), "a link to");
        }
    }
}

#[test]
fn links_to_nowhere_and_circles_are_errors() {
    for target in ["../../blobs/gone", "model.safetensors"] {
        let root = TempDir::new();
        let snapshot = cached(&root);
        fs::remove_file(snapshot.join("model.safetensors")).unwrap();
        symlink(target, snapshot.join("model.safetensors")).unwrap();
        let error = refusal_in_time(&snapshot);
        assert_eq!((error.code(), &error.details()["operation"]), ("IO_ERROR", &"follow the link".into()));
    }
}

#[test]
fn a_link_that_leaves_blobs_by_a_second_link_is_refused() {
    let (root, elsewhere) = (TempDir::new(), TempDir::copy_of("gpt2"));
    let snapshot = cached(&root);
    fs::remove_file(root.join("repo/blobs/5eed")).unwrap();
    symlink(elsewhere.join("model.safetensors"), root.join("repo/blobs/5eed")).unwrap();
    invalid(refusal_in_time(&snapshot), "a link to");
}

// ---- reading ----

#[test]
fn ranges_are_read_in_blocks() {
    let dir = TempDir::new();
    let bytes: Vec<u8> = (0..(1 << 20) + 16).map(|i| (i % 251) as u8).collect(); // so that the last block is short
    dir.write("x", &bytes);
    let file = StoredFile::open(&dir.0, "x").unwrap();
    assert_eq!((file.name.as_str(), file.length), ("x", bytes.len() as u64));
    let (mut sizes, mut read) = (Vec::new(), Vec::<u8>::new());
    let each = |block: &[u8]| {
        sizes.push(block.len());
        read.extend(block);
    };
    file.blocks(0..file.length, each).unwrap();
    assert_eq!((sizes, read == bytes), (vec![1 << 20, 16], true));
    file.blocks(5..5, |_| panic!("nothing to read")).unwrap();
    assert_eq!(error(file.blocks(4..file.length + 4, |_| ())).code(), "IO_ERROR");
}

// ---- change ----

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// Writes over bytes; the file system's clock must tick first.
fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    std::thread::sleep(Duration::from_millis(50));
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

#[test]
fn a_file_that_changed_since_it_was_opened_is_noticed() {
    for change in [
        (|path| append(path, b"x")) as fn(&Path),
        |path| overwrite(path, 3, b"x"),
        |path| OpenOptions::new().write(true).open(path).unwrap().set_len(4).unwrap(),
        |path| {
            let time = fs::metadata(path).unwrap().modified().unwrap();
            append(path, b"x");
            OpenOptions::new().write(true).open(path).unwrap().set_modified(time).unwrap();
        },
    ] {
        let dir = TempDir::new();
        dir.write("x", b"0123456789");
        let file = StoredFile::open(&dir.0, "x").unwrap();
        file.check_unchanged().unwrap();
        change(&dir.join("x"));
        invalid(error(file.check_unchanged()), "changed while it was read");
    }
}

#[test]
fn a_small_file_that_changes_while_it_is_read_is_noticed() {
    let dir = TempDir::new();
    let path = dir.join("x");
    fs::write(&path, vec![b' '; 1 << 20]).unwrap();
    let stop = AtomicBool::new(false);
    let noticed = std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            // it only grows: what was there when it was opened can always be read
            let lengths = (1 << 20) + 1..2 << 20;
            lengths.take_while(|_| !stop.load(Ordering::Relaxed)).for_each(|n| file.set_len(n).unwrap());
        });
        let read = || read_small(&path, 2 << 20, |found| panic!("{found}"));
        let deadline = Instant::now() + Duration::from_secs(20);
        let noticed = std::iter::from_fn(|| (Instant::now() < deadline).then(read)).find_map(|read| read.err());
        stop.store(true, Ordering::Relaxed);
        noticed
    });
    invalid(noticed.expect("no change was noticed"), "changed while it was read");
}

#[test]
fn reading_alone_is_no_change() {
    let dir = TempDir::new();
    dir.write("x", b"0123456789");
    let file = StoredFile::open(&dir.0, "x").unwrap();
    fs::File::open(dir.join("x")).unwrap().read_to_end(&mut Vec::new()).unwrap();
    file.check_unchanged().unwrap();
}

#[test]
fn a_file_that_changes_while_it_is_loaded_is_noticed() {
    for change in [
        (|path| append(path, b"x")) as fn(&Path),
        |path| overwrite(path, fs::metadata(path).unwrap().len() - 1, b"x"),
        |path| OpenOptions::new().write(true).open(path).unwrap().set_len(2000).unwrap(), // the rest cannot be read
    ] {
        let dir = TempDir::copy_of("gpt2");
        let path = dir.join("model.safetensors");
        let progress = |layers: usize, _: usize| {
            if layers == 1 {
                change(&path);
            }
        };
        let job = Job { cancel: &Cancel::default(), progress: &progress };
        invalid(error(Session::load(&dir.0, &LoadOptions::default(), &job)), "changed while it was read");
    }
}

// ---- fingerprint ----

fn fingerprint(dir: &Path) -> Result<String> {
    load(dir)?.fingerprint()
}

/// Flips the lowest bit of the last byte.
fn flip_last_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_fingerprint_is_that_of_the_bytes() {
    let (a, b) = (TempDir::copy_of("gpt2_sharded"), TempDir::copy_of("gpt2_sharded"));
    let original = fingerprint(&a.0).unwrap();
    assert!(original.len() == 64 && original.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')), "{original}");
    assert_eq!(fingerprint(&b.0).unwrap(), original, "a copy");

    append(&b.join("config.json"), b" ");
    let config = fingerprint(&b.0).unwrap();
    assert_ne!(config, original, "a blank in the config");
    flip_last_bit(&b.join("model-00004-of-00005.safetensors"));
    assert_ne!(fingerprint(&b.0).unwrap(), config, "a bit of a weight");
    flip_last_bit(&b.join("model-00004-of-00005.safetensors"));
    assert_eq!(fingerprint(&b.0).unwrap(), config, "the bit back");

    // what is not read does not count
    b.write("README.md", "hello");
    assert_eq!(fingerprint(&b.0).unwrap(), config);
}

#[test]
fn the_fingerprint_of_a_session_is_that_of_what_it_loaded() {
    let dir = TempDir::copy_of("gpt2");
    let weights = dir.join("model.safetensors");
    let length = fs::metadata(&weights).unwrap().len();
    let session: Session = load(&dir.0).unwrap();
    let original = session.fingerprint().unwrap();
    assert_eq!(session.fingerprint().unwrap(), original);

    append(&dir.join("config.json"), b" "); // the config was read whole when it was loaded
    assert_eq!(session.fingerprint().unwrap(), original);

    overwrite(&weights, length - 1, b"x");
    invalid(error(session.fingerprint()), "changed while it was read");
    let session = load(&dir.0).unwrap();
    OpenOptions::new().write(true).open(&weights).unwrap().set_len(length - 4).unwrap();
    invalid(error(session.fingerprint()), "changed while it was read");
}
