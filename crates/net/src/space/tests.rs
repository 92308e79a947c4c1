use super::*;

#[test]
fn paths_outside_the_folder_are_refused() {
    let folder = Path::new("/run/docker/netns");
    for good in ["/run/docker/netns/0a1b2c", "/proc/812/ns/net"] {
        check_path(Path::new(good), folder).unwrap();
    }
    for bad in [
        "/run/docker/netns/../../x",
        "/run/docker/netns",
        "/run/docker/netns/a/b",
        "/run/netns/a",
        "run/docker/netns/a",
        "/proc/self/ns/net",
        "/proc/812/ns/mnt",
        "/proc/1/../812/ns/net",
        "/proc/812/task/1/ns/net",
    ] {
        let error = check_path(Path::new(bad), folder).unwrap_err();
        assert!(error.to_string().contains(bad), "{error}");
    }
}

#[test]
fn the_hosts_namespace_is_no_containers() {
    let error = Space::open(Path::new(&format!("/proc/{}/ns/net", std::process::id()))).unwrap_err();
    assert!(error.to_string().contains("this host's own network namespace"), "{error}");
}

#[test]
fn another_file_is_no_namespace_yet() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(Space::open(file.path()).unwrap().is_none());
}

#[test]
fn another_name_of_the_folder_is_the_folder() {
    let root = tempfile::tempdir().unwrap();
    let (folder, link) = (root.path().join("run"), root.path().join("var-run"));
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(&folder, &link).unwrap();
    check_path(&link.join("0a1b2c"), &folder).unwrap();
    check_path(&root.path().join("0a1b2c"), &folder).unwrap_err();
}
