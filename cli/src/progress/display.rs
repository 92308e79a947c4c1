//! What a wait shows: lines that change in place on a terminal, a line for each change elsewhere.

use std::io;

use super::view::{Progress, rank};
use crate::{
    out::Out,
    units::{ellipsis, one_line},
};

/// Characters of an error beside a task.
const ERROR_LEN_MAX: usize = 75;
/// Characters of a bar.
const BAR_LEN: usize = 50;
/// Characters of the longest state that has a bar, `preparing`.
const STATE_LEN: usize = 9;
/// Steps from `new` to `running`.
const STEPS: usize = 9;

/// The lines of one wait.
pub(crate) struct Display<'o> {
    out: &'o mut Out,
    quiet: bool,
    lines: Vec<(String, String)>,
    drawn: usize,
    changed: bool,
}

impl<'o> Display<'o> {
    /// Shows on `out`; nothing if `quiet`.
    pub(crate) fn new(out: &'o mut Out, quiet: bool) -> Self {
        Self { out, quiet, lines: Vec::new(), drawn: 0, changed: false }
    }

    /// Sets a line.
    pub(super) fn set(&mut self, id: &str, text: String) -> io::Result<()> {
        self.change(id, one_line(&text), false)?;
        // A line of its own is news: show it at once.
        self.draw()
    }

    /// Sets the lines of how far the service is. On a terminal the sum stands above the tasks. Elsewhere it comes after
    /// those that have changed, so that the last line of a change says what it led to.
    pub(super) fn progress(&mut self, progress: &Progress) -> io::Result<()> {
        if self.out.is_terminal() {
            self.change(progress.title, progress.overall.clone(), false)?;
            self.tasks(progress)?;
        } else {
            self.tasks(progress)?;
            self.change(progress.title, progress.overall.clone(), false)?;
        }
        self.draw()
    }

    fn tasks(&mut self, progress: &Progress) -> io::Result<()> {
        for line in &progress.lines {
            let text = match (&line.error, rank(&line.state)) {
                (Some(error), _) => ellipsis(error, ERROR_LEN_MAX),
                (None, Some(step)) if step <= STEPS && self.out.is_terminal() => {
                    let done = step * BAR_LEN / STEPS;
                    format!("{:<STATE_LEN$} [{}>{}]", line.state, "=".repeat(done), " ".repeat(BAR_LEN - done))
                }
                _ => line.state.clone(),
            };
            self.change(&line.id, text, false)?;
        }
        Ok(())
    }

    /// Sets a line that counts seconds down; away from a terminal it is shown once.
    pub(super) fn countdown(&mut self, id: &str, seconds: u64) -> io::Result<()> {
        let unit = if seconds == 1 { "second" } else { "seconds" };
        self.change(id, format!("Waiting {seconds} {unit} to verify that tasks are stable..."), true)?;
        self.draw()
    }

    fn change(&mut self, id: &str, text: String, counting: bool) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        let line = match self.lines.iter_mut().find(|(other, _)| other == id) {
            Some((_, line)) if *line == text => return Ok(()),
            Some((_, line)) => line,
            None => {
                self.lines.push((id.to_owned(), String::new()));
                &mut self.lines.last_mut().expect("it was just added").1
            }
        };
        let is_same_count = counting && line.starts_with("Waiting ");
        *line = text;
        self.changed = true;
        if !self.out.is_terminal() && !is_same_count {
            let line = format!("{id}: {line}");
            self.out.line(&line)?;
        }
        Ok(())
    }

    /// Draws all lines anew on a terminal, if one has changed.
    fn draw(&mut self) -> io::Result<()> {
        if !self.out.is_terminal() || !self.changed {
            return Ok(());
        }
        self.changed = false;
        // Up to the first line; no wrapping meanwhile, else long lines would take two rows.
        let mut frame = String::from("\x1b[?7l");
        if self.drawn > 0 {
            frame.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for (id, text) in &self.lines {
            frame.push_str(&format!("\r\x1b[2K{id}: {text}\n"));
        }
        frame.push_str("\x1b[?7h");
        self.drawn = self.lines.len();
        self.out.print(&frame)
    }
}
