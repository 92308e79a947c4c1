//! The images of `examples/hello`: built here, imported into the engine, so that no registry is needed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::Command;

use anyhow::{Context, Result};

use crate::engine::Engine;
use crate::{process, ui, workspace};

/// The image's name.
const NAME: &str = "hello";
/// Each tag, and what its environment has beside the version.
const TAGS: [(&str, &[&str]); 3] = [("1", &[]), ("2", &[]), ("broken", &["HELLO_MODE=broken"])];
/// Holds a digest of what the image was made of, so that an image that is up to date is not made again.
const DIGEST_LABEL: &str = "swarm.example.digest";

/// Builds `hello` and imports `hello:1`, `hello:2` and `hello:broken` where they are missing or old.
/// Returns the references that it made.
pub(crate) fn ensure(engine: &Engine) -> Result<Vec<String>> {
    let tar = build()?;
    let mut made = Vec::new();
    for (tag, environment) in TAGS {
        let reference = format!("{NAME}:{tag}");
        let mut changes = vec![
            r#"ENTRYPOINT ["/hello"]"#.to_owned(),
            "EXPOSE 8080/tcp".to_owned(),
            format!("ENV HELLO_VERSION={tag}"),
        ];
        changes.extend(environment.iter().map(|variable| format!("ENV {variable}")));
        let mut hasher = DefaultHasher::new();
        (&tar, &changes).hash(&mut hasher);
        let digest = format!("{:016x}", hasher.finish());
        let labels = engine.image_labels(&reference)?;
        if labels.as_ref().and_then(|labels| labels.get(DIGEST_LABEL)) == Some(&digest) {
            continue;
        }
        if labels.is_some() {
            // Otherwise the old image stays, without a name.
            engine.remove_image(&reference)?;
        }
        changes.push(format!("LABEL {DIGEST_LABEL}={digest}"));
        engine.import(NAME, tag, &changes, &tar)?;
        made.push(reference);
    }
    if !made.is_empty() {
        ui::seen(&format!("imported {} ({} kB each, one static binary)", made.join(", "), tar.len() / 1024));
    }
    Ok(made)
}

/// Builds the static binary and returns it as a tar archive.
fn build() -> Result<Vec<u8>> {
    // A folder of its own: other compiler flags would make cargo build everything else anew.
    let target = workspace::metadata()?.target_directory.join("hello");
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--release", "--package", "hello", "--target-dir"]).arg(&target);
    cargo
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    process::run(&mut cargo).context(
        "cannot build examples/hello as a static binary; it needs a C compiler and the static C library \
         (Debian: gcc and libc6-dev; Fedora: gcc and glibc-static)",
    )?;
    let mut tar = Command::new("tar");
    tar.args(["--create", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--mode=0755", "--directory"])
        .arg(target.join("release"))
        .arg("hello");
    process::output(&mut tar)
}
