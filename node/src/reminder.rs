//! How often trouble that lasts is spoken of.

use std::time::Duration;

use tokio::time::Instant;

/// Trouble that lasts is spoken of once in this time: often enough for somebody who begins to look, and a day of it is
/// less than 1,500 lines.
pub(crate) const PERIOD: Duration = Duration::from_secs(60);

/// Speaks of trouble when it begins, then once in a period while it goes on, and once when it is over.
#[derive(Debug)]
pub(crate) struct Reminder {
    period: Duration,
    said: Option<Instant>,
    silent: u64,
}

impl Reminder {
    /// Nothing is wrong yet.
    pub(crate) fn new(period: Duration) -> Self {
        Self { period, said: None, silent: 0 }
    }

    /// It went wrong once more. If that is to be said, how often it was not said before.
    pub(crate) fn happened(&mut self) -> Option<u64> {
        if self.due().is_some_and(|due| Instant::now() < due) {
            self.silent += 1;
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.silent))
    }

    /// When it is to be said again; none before it was said for the first time.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.said.map(|said| said + self.period)
    }

    /// It is over. Whether it had been said.
    pub(crate) fn over(&mut self) -> bool {
        self.silent = 0;
        self.said.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn trouble_is_said_at_once_then_once_a_period_and_once_when_it_is_over() {
        let mut reminder = Reminder::new(PERIOD);
        assert!(!reminder.over(), "nothing was wrong");
        let mut said = Vec::new();
        for second in 0..150 {
            said.extend(reminder.happened().map(|silent| (second, silent)));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(said, [(0, 0), (60, 59), (120, 59)]);
        assert!(reminder.over());
        assert!(!reminder.over());
        assert_eq!(reminder.happened(), Some(0), "it is new again");
    }
}
