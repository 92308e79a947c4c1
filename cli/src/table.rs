//! Columns as `docker` aligns them.

/// Spaces between two columns.
const PADDING: usize = 3;
/// Narrowest column, padding included.
const WIDTH_MIN: usize = 10;

/// Aligns lines whose cells are separated by tabs. The last cell of a line is not padded, and no line ends in spaces.
pub(crate) fn align<S: AsRef<str>>(lines: &[S]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for line in lines {
        let cells: Vec<&str> = line.as_ref().split('\t').collect();
        for (i, cell) in cells[..cells.len() - 1].iter().enumerate() {
            let width = (cell.chars().count() + PADDING).max(WIDTH_MIN);
            match widths.get_mut(i) {
                Some(w) => *w = (*w).max(width),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for line in lines {
        let start = text.len();
        for (i, cell) in line.as_ref().split('\t').enumerate() {
            text.push_str(cell);
            let pad = widths.get(i).map_or(0, |w| w.saturating_sub(cell.chars().count()));
            text.extend(std::iter::repeat_n(' ', pad));
        }
        text.truncate(start + text[start..].trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_three() {
        let lines =
            ["ID\tNAME\tMODE\tPORTS", "hyfde9xmq0od\tweb\treplicated\t", "a\ta-long-service-name\tglobal\t*:80"];
        assert_eq!(
            align(&lines),
            "ID             NAME                  MODE         PORTS\n\
             hyfde9xmq0od   web                   replicated\n\
             a              a-long-service-name   global       *:80\n"
        );
    }

    proptest! {
        #[test]
        fn any_lines_align(lines in proptest::collection::vec("[a-zé ]{0,6}(\t[a-z ]{0,14}){0,3}", 0..5)) {
            prop_assert_eq!(align(&lines).lines().count(), lines.len());
        }
    }
}
