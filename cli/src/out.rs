//! The one place that writes to standard output and standard error.

use std::io::{self, IsTerminal, Write};

/// Where a command writes. A reader that went away (`swarmctl service ls | head -1`) shows as
/// [`io::ErrorKind::BrokenPipe`], which `main` takes for a normal end.
pub(crate) struct Out {
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
    terminal: bool,
    colour: bool,
}

impl Out {
    /// The streams of this process. Colour needs a terminal and no `NO_COLOR` (<https://no-color.org>).
    pub(crate) fn process() -> Self {
        let terminal = io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self {
            stdout: Box::new(io::stdout()),
            stderr: Box::new(io::stderr()),
            terminal,
            colour: terminal && !no_colour,
        }
    }

    /// Whether standard output is a terminal that can move its cursor.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether to use colour.
    pub(crate) fn has_colour(&self) -> bool {
        self.colour
    }

    /// Writes text to standard output and flushes it.
    pub(crate) fn print(&mut self, text: &str) -> io::Result<()> {
        self.bytes(text.as_bytes())?;
        self.stdout.flush()
    }

    /// Writes a line to standard output.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.print(&format!("{text}\n"))
    }

    /// Writes bytes to standard output without flushing them.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stdout.write_all(bytes)
    }

    /// Writes bytes to standard error.
    pub(crate) fn error_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stderr.write_all(bytes)
    }

    /// Flushes standard output.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }

    /// Asks for something, on standard error. There is nothing to do if it cannot be written.
    pub(crate) fn prompt(&mut self, text: &str) {
        let _ = write!(self.stderr, "{text}").and_then(|()| self.stderr.flush());
    }

    /// Writes a line to standard error: a warning, an error, a hint. There is nothing to do if it cannot be written.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = writeln!(self.stderr, "{text}");
    }
}

#[cfg(test)]
pub(crate) mod capture {
    //! An [`Out`] that keeps what is written.

    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was written.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        /// All of it as text.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An `Out` and what goes to its standard output.
    pub(crate) fn out(terminal: bool) -> (Out, Captured) {
        let stdout = Captured::default();
        let out =
            Out { stdout: Box::new(stdout.clone()), stderr: Box::new(Captured::default()), terminal, colour: terminal };
        (out, stdout)
    }
}
