//! `--cap-add` and `--cap-drop`.

use serde_json::Value;

use super::{container::container, draft::Draft};

/// Empties the list of the flag that names it.
const RESET: &str = "CAP_RESET";

/// Upper case with the prefix that the API wants.
///
/// # Errors
/// Not the name of a capability.
pub(super) fn parse_capability(text: &str) -> Result<String, String> {
    let name = text.to_ascii_uppercase();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!("'{text}' is not a capability, for example NET_ADMIN"));
    }
    Ok(if name == "ALL" || name.starts_with("CAP_") { name } else { format!("CAP_{name}") })
}

/// Writes what is set. An added capability that the service drops is dropped no more, and the other way round; that
/// brings it back to the engine's default. One that is added and dropped at once is added.
pub(super) fn apply(draft: &mut Draft, add: &[String], drop: &[String]) {
    let change = |draft: &mut Draft, wanted: &[String], list: &str, opposite: &str| {
        if wanted.iter().any(|name| name == RESET) {
            draft.remove(&container(list));
        }
        let (mut names, mut opposites) = (draft.list(&container(list)), draft.list(&container(opposite)));
        for name in wanted.iter().filter(|name| *name != RESET).map(|name| Value::from(name.as_str())) {
            if let Some(at) = opposites.iter().position(|other| *other == name) {
                opposites.remove(at);
            } else if !names.contains(&name) {
                names.push(name);
            }
        }
        draft.put(&container(list), names);
        draft.put(&container(opposite), opposites);
    };
    let drop: Vec<String> = drop.iter().filter(|name| *name == RESET || !add.contains(name)).cloned().collect();
    change(draft, add, "CapabilityAdd", "CapabilityDrop");
    change(draft, &drop, "CapabilityDrop", "CapabilityAdd");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::spec_flags::testing::edited;

    #[test]
    fn adding_takes_back_a_drop_and_the_other_way_round() {
        let with = |add: &[&str], drop: &[&str]| {
            let mut container = json!({"Image": "x"});
            for (name, list) in [("CapabilityAdd", add), ("CapabilityDrop", drop)] {
                if !list.is_empty() {
                    container[name] = json!(list);
                }
            }
            json!({"TaskTemplate": {"ContainerSpec": container}})
        };
        for (line, add, drop) in [
            (
                &["--cap-add", "chown", "--cap-drop", "kill"][..],
                &["CAP_A", "CAP_CHOWN"][..],
                &["CAP_D", "CAP_KILL"][..],
            ),
            (&["--cap-add", "d"], &["CAP_A"], &[]),
            (&["--cap-drop", "a", "--cap-drop", "CAP_D"], &[], &["CAP_D"]),
            (&["--cap-add", "b", "--cap-drop", "b"], &["CAP_A", "CAP_B"], &["CAP_D"]),
            (&["--cap-add", "reset", "--cap-add", "b"], &["CAP_B"], &["CAP_D"]),
            (&["--cap-drop", "RESET"], &["CAP_A"], &[]),
        ] {
            assert_eq!(edited(with(&["CAP_A"], &["CAP_D"]), line), Ok(with(add, drop)), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_capability_or_refused(text in "\\PC{0,20}") {
            let _ = parse_capability(&text);
        }
    }
}
