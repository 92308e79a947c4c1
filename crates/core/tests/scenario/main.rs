//! Scenario scripts: one file in `tests/scenarios` per behaviour. Each step is a line of command, a line `----`, and
//! what comes of it. `REWRITE=1 cargo test -p swarm-core --test scenario` writes the outcomes anew: read the
//! difference as documentation before you commit it.

mod world;

use std::{fmt::Write as _, fs, path::Path};

use world::World;

fn run(script: &str) -> String {
    let mut world = World::default();
    let mut out = String::new();
    for step in script.split("\n\n").map(|s| s.trim_matches('\n')).filter(|s| !s.is_empty()) {
        let (commands, expected) = step.split_once("----").map_or((step, false), |(commands, _)| (commands, true));
        let commands = commands.trim_end();
        let _ = writeln!(out, "{commands}");
        let mut output = String::new();
        for command in commands.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            match world.run(command) {
                Ok(text) => output.push_str(&text),
                Err(error) => {
                    let _ = writeln!(output, "error: {error}");
                }
            }
        }
        if expected {
            let _ = writeln!(out, "----\n{}", output.trim_end());
        } else {
            assert!(output.is_empty(), "a step without ---- must say nothing:\n{commands}\n{output}");
        }
        out.push('\n');
    }
    out.trim_end().to_owned() + "\n"
}

#[test]
fn scenarios() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<_> =
        fs::read_dir(&folder).expect("the folder of scripts").map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {}", folder.display());
    let rewrite = std::env::var_os("REWRITE").is_some();
    let mut wrong = Vec::new();
    for path in paths {
        let script = fs::read_to_string(&path).expect("a script");
        let found = run(&script);
        if rewrite {
            fs::write(&path, found).expect("the script can be written");
        } else if found != script {
            let line = script.lines().zip(found.lines()).position(|(a, b)| a != b).unwrap_or(0);
            wrong.push(format!("{}:{}\n--- came out as\n{found}", path.display(), line + 1));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
