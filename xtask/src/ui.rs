//! What people see: headings, explanations, results. Colour only on a terminal.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

/// Whether standard output is a terminal that takes colour and rewritten lines.
pub(crate) fn terminal() -> bool {
    static TERMINAL: OnceLock<bool> = OnceLock::new();
    *TERMINAL.get_or_init(|| {
        std::io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    })
}

fn paint(code: &str, text: &str) -> String {
    if terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// For what went wrong.
pub(crate) fn red(text: &str) -> String {
    paint("1;31", text)
}

/// For what went well.
pub(crate) fn green(text: &str) -> String {
    paint("32", text)
}

/// For warnings.
pub(crate) fn yellow(text: &str) -> String {
    paint("33", text)
}

/// For what may be skipped when reading.
pub(crate) fn dim(text: &str) -> String {
    paint("2", text)
}

/// A heading.
pub(crate) fn heading(text: &str) {
    println!("\n{}", paint("1", text));
}

/// An explanation.
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// A command that is run now.
pub(crate) fn command(line: &str) {
    println!("{}", dim(&format!("$ {line}")));
}

/// Something that was seen to be so.
pub(crate) fn seen(text: &str) {
    println!("{} {text}", green("✓"));
}

/// Something that the reader should know, but that is no failure.
pub(crate) fn warn(text: &str) {
    println!("{} {text}", yellow("warning:"));
}

/// Shows what is being waited for, in a line that the next one replaces (a terminal only).
pub(crate) fn progress(text: &str) {
    if terminal() {
        // A terminal of the least usual width still shows it on one line, so that it can be replaced.
        let text: String = text.chars().take(78).collect();
        print!("\r\x1b[2K{}", dim(&text));
        flush();
    } else {
        println!("{text}");
    }
}

/// Takes the line of [`progress`] away.
pub(crate) fn progress_end() {
    if terminal() {
        print!("\r\x1b[2K");
        flush();
    }
}

fn flush() {
    // A closed standard output shows itself at the next line.
    drop(std::io::stdout().flush());
}
