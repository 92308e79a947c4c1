//! `cargo xtask flags`: what becomes of each flag of Docker's CLI, as a table in a document.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{process, programs, ui};

/// The version of Docker's CLI that the table is of.
const VERSION: &str = "28.2.";
/// The groups of commands that a swarm has.
const GROUPS: [&str; 6] = ["swarm", "node", "service", "secret", "config", "network"];
const BEGIN: &str = "<!-- flags -->";
const END: &str = "<!-- end of flags -->";

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Same,
    Refused,
    Differs,
}

use Fate::{Differs, Refused};

impl Fate {
    const fn text(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Refused => "refused by name",
            Self::Differs => "differs",
        }
    }
}

/// Flags (`command --flag`), their fate, and the text about them.
type Note<'a> = (&'a [&'a str], Fate, &'a str);

/// Notes about flags of which more is to be said than that swarmctl has them: the flags, each with its command, their fate, and
/// the difference or the reason.
const NOTES: &[Note<'_>] = &[
    (
        &["swarm ca --external-ca", "swarm init --external-ca", "swarm update --external-ca"],
        Refused,
        "managers sign certificates themselves",
    ),
    (&["swarm init --dispatcher-heartbeat"], Differs, "2 s where nothing is said"),
    (&["swarm init --force-new-cluster"], Differs, "refused while a majority of the managers leads"),
    (&["swarm leave --force"], Differs, "a manager that the others can do without leaves without it"),
    (
        &[
            "service create --config",
            "service create --secret",
            "service update --config-add",
            "service update --secret-add",
        ],
        Differs,
        "with swarmctl `mode` is octal and begins with 0; Docker's CLI takes other numbers for decimal ones",
    ),
    (&["secret create --driver"], Refused, "there are no secret plugins, the managers keep the data"),
    (
        &["secret create --template-driver", "config create --template-driver"],
        Differs,
        "`golang` is the only one, and the data must be a template",
    ),
    (&["service create --credential-spec", "service update --credential-spec"], Refused, "for Windows"),
    (
        &["service create --isolation", "service update --isolation"],
        Refused,
        "for Windows; `default` is taken from Docker's CLI",
    ),
    (&["service create --network", "service update --network-add"], Differs, "without `driver-opt`"),
    (&["service create --publish", "service update --publish-add"], Differs, "SCTP in ingress mode is refused"),
    (
        &["network create --config-from", "network create --config-only", "network create --ipam-opt"],
        Differs,
        "for networks of one node, which are the engine's",
    ),
    (&["network create --driver"], Differs, "swarmctl: `overlay` where nothing is said; a swarm has no other one"),
    (&["network create --ingress"], Refused, "published ports need no network"),
    (&["network create --ipam-driver"], Differs, "`default` is the only one of a swarm"),
    (&["network create --ipv4"], Differs, "a network of the swarm has IPv4 addresses"),
    (&["network create --opt"], Differs, "of overlay networks: `encrypted`, the MTU and the VXLAN"),
    (
        &[
            "network connect --alias",
            "network connect --gw-priority",
            "network connect --ip",
            "network connect --ip6",
            "network connect --link-local-ip",
            "network disconnect --force",
        ],
        Differs,
        "with Docker's CLI; networks of the swarm that are attachable, and those of the engine",
    ),
    (
        &["network connect --driver-opt"],
        Differs,
        "as with Docker for networks of the engine; for a network of the swarm an option of the engine's bridge network",
    ),
    (
        &["network connect --link"],
        Differs,
        "as with Docker for networks of the engine; refused for a network of the swarm, where an alias does the same",
    ),
    (
        &["service create --mount", "service update --mount-add"],
        Differs,
        "without `volume-subpath`, and without `bind-recursive=writable` and `=readonly`",
    ),
];

/// Writes the table into its section of a document. `docker` is Docker's CLI.
///
/// # Errors
/// A CLI of another version, a flag of which nobody has said what becomes of it, or a note about a flag that there is not.
pub(crate) fn run(docker: &Path, document: &Path) -> Result<()> {
    let version = help(docker, &["--version"])?;
    ensure!(version.contains(&format!("version {VERSION}")), "Docker's CLI {VERSION}x is wanted, this is {version}");
    let swarmctl = programs::build()?.swarmctl;
    let mut rows = Vec::new();
    for group in GROUPS {
        for command in commands(&help(docker, &[group, "--help"])?) {
            let words = [group, &command, "--help"];
            // A command that swarmctl does not have has no flags there.
            let ours: BTreeSet<String> =
                help(&swarmctl, &words).map(|help| flags(&help)).unwrap_or_default().into_iter().collect();
            let name = format!("{group} {command}");
            rows.extend(
                flags(&help(docker, &words)?).into_iter().map(|flag| (name.clone(), ours.contains(&flag), flag)),
            );
        }
    }
    let table = table(&rows, NOTES)?;
    let text = fs::read_to_string(document).with_context(|| format!("cannot read {}", document.display()))?;
    let parts = text.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let Some((head, tail)) = parts else { bail!("{} has no section between {BEGIN} and {END}", document.display()) };
    let text = format!("{head}{BEGIN}\n{}, `cargo xtask flags`.\n\n{table}{END}{tail}", version.trim());
    fs::write(document, text).with_context(|| format!("cannot write {}", document.display()))?;
    ui::say(&format!("{} flags in {}", rows.len(), document.display()));
    Ok(())
}

/// What a program says of itself, in English.
fn help(program: &Path, words: &[&str]) -> Result<String> {
    let output = process::output(Command::new(program).args(words).env("LC_ALL", "C"))?;
    String::from_utf8(output).with_context(|| format!("{} prints what is no text", program.display()))
}

/// The commands of a group: the lines below the heading, each a word and what it is for.
fn commands(help: &str) -> Vec<String> {
    let below = help.lines().skip_while(|line| !line.ends_with("Commands:") && !line.ends_with("COMMANDS:"));
    let lines = below.skip(1).skip_while(|line| line.trim().is_empty()).take_while(|line| line.starts_with("  "));
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// The long names of the flags that a command has, in their order.
fn flags(help: &str) -> Vec<String> {
    let named = |line: &str| {
        let line = line.trim_start();
        let rest = line
            .strip_prefix("--")
            .or_else(|| line.split_once(", --").filter(|(short, _)| short.len() == 2)?.1.into())?;
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
        (end > 0).then(|| rest[..end].to_owned())
    };
    help.lines().filter(|line| line.starts_with("  ")).filter_map(named).collect()
}

/// The table. A row has the command, whether swarmctl has the flag, and the flag.
fn table(rows: &[(String, bool, String)], notes: &[Note<'_>]) -> Result<String> {
    let mut unused: BTreeSet<&str> = notes.iter().flat_map(|(flags, ..)| *flags).copied().collect();
    let mut table = String::from("| command | flag | |\n|---|---|---|\n");
    for (command, has, flag) in rows {
        let full = format!("{command} --{flag}");
        unused.remove(full.as_str());
        let note = notes.iter().find(|(flags, ..)| flags.contains(&full.as_str()));
        let (fate, why) = match note {
            Some((_, fate, why)) => (*fate, format!(": {why}")),
            None if *has => (Fate::Same, String::new()),
            None => bail!("`{full}`: swarmctl has no such flag, and nothing says what becomes of it"),
        };
        table.push_str(&format!("| `{command}` | `--{flag}` | {}{why} |\n", fate.text()));
    }
    ensure!(unused.is_empty(), "there are notes about flags that Docker's CLI does not have: {unused:?}");
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "\
Usage:  tool thing [OPTIONS]

Does things, --all of them

Options:
      --alone            Without others
  -d, --detach           At once
      --label-add list   Adds a label, see --label-rm
";

    #[test]
    fn flags_and_commands_are_found() {
        assert_eq!(flags(HELP), ["alone", "detach", "label-add"]);
        let group = "Usage\n\nCommands:\n  create      Makes one\n  rm          Removes one\n\nRun it\n  and see\n";
        assert_eq!(commands(group), ["create", "rm"]);
    }

    #[test]
    fn each_flag_has_its_fate() {
        let row = |has, flag: &str| ("service create".to_owned(), has, flag.to_owned());
        let notes: [Note<'_>; 1] = [(&["service create --b"], Refused, "not yet")];
        let found = table(&[row(true, "a"), row(false, "b")], &notes).unwrap();
        assert!(found.contains("| `service create` | `--a` | same |\n"), "{found}");
        assert!(found.contains("| `service create` | `--b` | refused by name: not yet |\n"), "{found}");
        assert!(table(&[row(false, "c"), row(false, "b")], &notes).unwrap_err().to_string().contains("--c"));
        assert!(table(&[row(true, "a")], &notes).unwrap_err().to_string().contains("does not have"));
    }
}
