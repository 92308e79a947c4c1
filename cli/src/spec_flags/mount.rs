//! `--mount type=…,source=…,target=…,…`.

use serde_json::Value;
use swarm_model::{BindOptions, Mount, MountType, TmpfsOptions, VolumeDriver, VolumeOptions};

use super::{
    csv,
    key_value::{parse_label, parse_octal},
};
use crate::units::parse_bytes;

/// Reads one mount.
///
/// # Errors
/// Says what is wrong, with the text.
pub(super) fn parse_mount(text: &str) -> Result<Mount, String> {
    let mut mount = Mount::default();
    for (key, value) in csv::pairs(text)? {
        field(&mut mount, &key, value.as_deref(), text)?;
    }
    if mount.target.is_empty() {
        return Err(format!("'{text}' has no target; write for example type=volume,source=data,target=/data"));
    }
    let misplaced = [
        ("bind-…", mount.bind_options.is_some(), MountType::Bind),
        ("volume-…", mount.volume_options.is_some(), MountType::Volume),
        ("tmpfs-…", mount.tmpfs_options.is_some(), MountType::Tmpfs),
    ];
    if let Some((name, ..)) = misplaced.iter().find(|(_, is_set, kind)| *is_set && *kind != mount.kind) {
        return Err(format!("a {name} option does not fit the type of '{text}'"));
    }
    Ok(mount)
}

fn field(mount: &mut Mount, key: &str, value: Option<&str>, text: &str) -> Result<(), String> {
    let flag = || switch(key, value, text);
    let needed = || match value {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        _ => Err(format!("'{key}' in '{text}' needs a value")),
    };
    match key {
        "type" => {
            mount.kind = match needed()?.as_str() {
                "bind" => MountType::Bind,
                "volume" => MountType::Volume,
                "tmpfs" => MountType::Tmpfs,
                other => return Err(format!("type '{other}' in '{text}' must be bind, volume or tmpfs")),
            }
        }
        "source" | "src" => mount.source = needed()?,
        "target" | "dst" | "destination" => mount.target = needed()?,
        "readonly" | "ro" => mount.read_only = flag()?,
        "consistency" => drop(mount.extra.insert("Consistency".to_owned(), Value::String(needed()?))),
        "bind-propagation" => bind(mount).propagation = needed()?,
        "bind-nonrecursive" => bind(mount).non_recursive = flag()?,
        "bind-create-src" => bind(mount).create_mountpoint = flag()?,
        "bind-recursive" => match needed()?.as_str() {
            "enabled" => {}
            "disabled" => bind(mount).non_recursive = true,
            other => return Err(format!("bind-recursive '{other}' in '{text}' must be enabled or disabled")),
        },
        "volume-nocopy" => volume(mount).no_copy = flag()?,
        "volume-label" => {
            let (name, value) = parse_label(&needed()?)?;
            volume(mount).labels.insert(name, value);
        }
        "volume-driver" => driver(mount).name = needed()?,
        "volume-opt" => {
            let (name, value) = parse_label(&needed()?)?;
            driver(mount).options.insert(name, value);
        }
        "tmpfs-size" => tmpfs(mount).size_bytes = parse_bytes(&needed()?)?,
        "tmpfs-mode" => {
            tmpfs(mount).mode = parse_octal(&needed()?)
                .ok_or_else(|| format!("tmpfs-mode in '{text}' must be octal, for example 1777"))?;
        }
        _ => {
            return Err(format!(
                "unknown key '{key}' in '{text}'; there are type, source, target, readonly, bind-…, volume-…, tmpfs-…"
            ));
        }
    }
    Ok(())
}

fn switch(key: &str, value: Option<&str>, text: &str) -> Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("'{key}' in '{text}' must be true or false, not '{other}'")),
    }
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_default()
}

fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    mount.volume_options.get_or_insert_default()
}

fn driver(mount: &mut Mount) -> &mut VolumeDriver {
    volume(mount).driver_config.get_or_insert_default()
}

fn tmpfs(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn mounts_that_people_write() {
        for (text, json) in [
            ("source=data,target=/data", json!({"Type": "volume", "Source": "data", "Target": "/data"})),
            (
                "type=bind,src=/a,dst=/b,ro,bind-propagation=rshared",
                json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true,
                    "BindOptions": {"Propagation": "rshared"}}),
            ),
            (
                r#"type=volume,target=/d,volume-driver=local,"volume-opt=o=size=1m,uid=1",volume-label=a=b,volume-nocopy"#,
                json!({"Type": "volume", "Target": "/d", "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"},
                    "DriverConfig": {"Name": "local", "Options": {"o": "size=1m,uid=1"}}}}),
            ),
            (
                "type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1777",
                json!({"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 67108864, "Mode": 1023}}),
            ),
        ] {
            let mount = parse_mount(text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(serde_json::to_value(mount).unwrap(), json, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("", "unknown key ''"),
            ("source=a", "no target"),
            ("type=nfs,target=/a", "'nfs'"),
            ("target=/a,ro=maybe", "'maybe'"),
            ("target=/a,tmpfs-size=1m", "tmpfs-…"),
            ("type=bind,target=/a,volume-nocopy", "volume-…"),
            ("type=tmpfs,target=/a,tmpfs-mode=9", "octal"),
            ("type=tmpfs,target=/a,tmpfs-mode=+777", "octal"),
            ("type=tmpfs,target=/a,tmpfs-size=big", "'big'"),
            ("target=/a,frob=1", "unknown key 'frob'"),
            ("target=/a,volume-subpath=b", "unknown key 'volume-subpath'"),
            ("type=bind,target=/a,bind-recursive=readonly", "enabled or disabled"),
            ("target=", "needs a value"),
        ] {
            assert!(parse_mount(text).is_err_and(|e| e.contains(part)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_mount_or_refused(text in "\\PC{0,30}|(type|target|ro|volume-opt|tmpfs-mode)=?[a-z0-9/=,\"]{0,20}") {
            let _ = parse_mount(&text);
        }
    }
}
