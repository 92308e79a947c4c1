use super::*;

const TASK: TaskId = TaskId(7);

fn file(text: &str, mode: u32, is_secret: bool) -> TaskFile {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    TaskFile { of: "secret key".into(), data: text.as_bytes().to_vec().into(), uid, gid, mode, is_secret }
}

fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("/dev/shm is there on Linux")
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn files_have_their_content_and_mode_in_folders_that_are_closed() {
    let (root, node) = (memory(), NodeId(3));
    let folder = Folder::new(&root.path().join("a/b"), node);
    folder.put(TASK, &[file("one", 0o444, true), file("two", 0o400, false)]).unwrap();
    assert_eq!(fs::read(folder.file(TASK, 0)).unwrap(), b"one");
    assert_eq!((mode(&folder.file(TASK, 0)), mode(&folder.file(TASK, 1))), (0o444, 0o400));
    for closed in [&folder.root, &folder.node, &folder.node.join(TASK.to_string())] {
        assert_eq!(mode(closed), 0o700);
    }
    // A file that is there stays as it is. A file that is missing is written again.
    fs::remove_file(folder.file(TASK, 1)).unwrap();
    fs::write(folder.file(TASK, 1).with_extension("new"), "half of").unwrap();
    folder.put(TASK, &[file("other", 0o444, true), file("two", 0o400, false)]).unwrap();
    assert_eq!(fs::read(folder.file(TASK, 0)).unwrap(), b"one");
    assert_eq!(fs::read(folder.file(TASK, 1)).unwrap(), b"two");
}

#[test]
fn files_go_with_their_task_and_what_nobody_keeps_goes_at_the_start() {
    let root = memory();
    let folder = Folder::new(&root.path().join("own"), NodeId(3));
    let other = Folder::new(&root.path().join("own"), NodeId(4));
    for task in [TASK, TaskId(8), TaskId(9)] {
        folder.put(task, &[file("x", 0o444, true)]).unwrap();
    }
    other.put(TASK, &[file("x", 0o444, true)]).unwrap();
    fs::create_dir(folder.node.join("no task")).unwrap();
    folder.drop_files(TASK);
    folder.keep(&[TaskId(8)]);
    let left: Vec<_> = fs::read_dir(&folder.node).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [TaskId(8).to_string().as_str()]);
    folder.keep(&[]);
    assert!(!folder.node.exists() && other.file(TASK, 0).exists());
    other.keep(&[]);
    assert!(!folder.root.exists());
}

#[test]
fn secrets_are_not_written_to_a_disk_and_configs_are() {
    // The folder of the sources is on a disk.
    let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let folder = Folder::new(root.path(), NodeId(3));
    folder.put(TASK, &[file("open", 0o444, false)]).unwrap();
    let Err(EngineError::Fatal(reason)) = folder.put(TaskId(8), &[file("closed", 0o444, true)]) else {
        panic!("refused")
    };
    assert!(reason.contains(&root.path().display().to_string()) && reason.contains("--secrets-dir"), "{reason}");
    assert!(!folder.file(TaskId(8), 0).exists());
}

#[test]
fn a_folder_that_others_may_change_is_refused() {
    let root = memory();
    let folder = Folder::new(root.path(), NodeId(3));
    for (mode, is_safe) in [(0o777, false), (0o770, false), (0o1777, true), (0o755, true)] {
        fs::set_permissions(root.path(), Permissions::from_mode(mode)).unwrap();
        let put = folder.put(TASK, &[file("x", 0o444, true)]);
        assert_eq!(put.is_ok(), is_safe, "{mode:o}: {put:?}");
    }
}

#[test]
fn a_folder_that_is_a_link_is_refused() {
    let root = memory();
    let folder = Folder::new(root.path(), NodeId(3));
    std::os::unix::fs::symlink("/tmp", &folder.node).unwrap();
    assert!(matches!(folder.put(TASK, &[file("x", 0o444, true)]), Err(EngineError::Fatal(_))));
}
