//! Small text helpers of the tables.

use std::cmp::Ordering;

/// Characters of an id in a table.
const SHORT_ID_LEN: usize = 12;

/// The first 12 characters of an id.
pub(crate) fn short_id(id: &str) -> &str {
    id.char_indices().nth(SHORT_ID_LEN).map_or(id, |(i, _)| &id[..i])
}

/// The text cut to so many characters, the last of them an ellipsis if something is missing.
pub(crate) fn ellipsis(text: &str, len_max: usize) -> String {
    if text.chars().count() <= len_max {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(len_max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// The text in one line without control characters, so that what a container or a server wrote can neither break
/// a table nor steer the terminal.
pub(crate) fn one_line(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The first letter in upper case.
pub(crate) fn capitalise(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

/// Compares texts so that the numbers in them count: `web.2` comes before `web.10`.
pub(crate) fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (mut a_rest, mut b_rest) = (a, b);
    loop {
        let (Some(x), Some(y)) = (a_rest.chars().next(), b_rest.chars().next()) else {
            return a_rest.len().cmp(&b_rest.len()).then_with(|| a.cmp(b));
        };
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let (m, a_tail) = take_number(a_rest);
            let (n, b_tail) = take_number(b_rest);
            // Without leading zeros the longer number is the larger one.
            match m.len().cmp(&n.len()).then_with(|| m.cmp(n)) {
                Ordering::Equal => (a_rest, b_rest) = (a_tail, b_tail),
                other => return other,
            }
        } else if x == y {
            (a_rest, b_rest) = (&a_rest[x.len_utf8()..], &b_rest[y.len_utf8()..]);
        } else {
            return x.cmp(&y);
        }
    }
}

fn take_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (text[..end].trim_start_matches('0'), &text[end..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_in_names_count() {
        let mut names = ["web.10", "web.2", "api.1", "web", "web.02x", "web.1"];
        names.sort_by(|a, b| natural_cmp(a, b));
        assert_eq!(names, ["api.1", "web", "web.1", "web.2", "web.02x", "web.10"]);
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(ellipsis("task: non-zero exit (7)", 30), "task: non-zero exit (7)");
        assert_eq!(ellipsis("No such image: nowhere/nothing:latest", 30), "No such image: nowhere/nothin…");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(one_line("a\x1b[2Jb\nc\t"), "a [2Jb c");
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in "[a-z0-9.]{0,8}", b in "[a-z0-9.]{0,8}", c in "[a-z0-9.]{0,8}") {
            prop_assert_eq!(natural_cmp(&a, &b), natural_cmp(&b, &a).reverse());
            prop_assert_eq!(natural_cmp(&a, &b) == Ordering::Equal, a == b);
            if natural_cmp(&a, &b).is_le() && natural_cmp(&b, &c).is_le() {
                prop_assert!(natural_cmp(&a, &c).is_le());
            }
        }

        #[test]
        fn any_text_is_cut(text in "\\PC{0,50}", len in 1..40_usize) {
            prop_assert!(ellipsis(&text, len).chars().count() <= len);
            prop_assert!(short_id(&text).chars().count() <= SHORT_ID_LEN);
        }
    }
}
