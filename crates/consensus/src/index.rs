//! What is known of the log without reading it: its ends, its marks and its newest entries.

use std::{collections::VecDeque, ops::Range};

use crate::types::{LogEntry, LogId, Vote, weight};

/// Durable entries that stay in memory: what followers in step and the apply path read.
const TAIL_ENTRIES: usize = 1024;
/// Bytes of them.
const TAIL_BYTES: usize = 16 * 1024 * 1024;

/// What is known of the log without reading it.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The durable vote.
    pub vote: Option<Vote>,
    /// The last entry known to be committed.
    pub committed: Option<LogId>,
    /// The last entry that is gone.
    pub purged: Option<LogId>,
    /// Index of the first entry; where there is none, of the one to come.
    pub start: u64,
    /// The last entry, if there is one.
    pub last: Option<LogId>,
    /// The newest entries, up to `last`.
    tail: VecDeque<LogEntry>,
    tail_bytes: usize,
    /// The last durable entry, or the last one that is gone.
    pub flushed: Option<LogId>,
}

impl Index {
    /// Index after the last entry.
    pub(crate) fn end(&self) -> u64 {
        self.last.or(self.purged).map_or(0, |last| last.index + 1)
    }

    /// Index of the first entry in the tail; where there is none, of the one to come.
    fn first(&self) -> u64 {
        self.tail.front().map_or(self.end(), |first| first.log_id.index)
    }

    fn pop_first(&mut self) {
        if let Some(first) = self.tail.pop_front() {
            self.tail_bytes -= weight(&first);
        }
    }

    /// A new entry at the end.
    pub(crate) fn push(&mut self, entry: LogEntry) {
        if self.last.is_none() {
            self.start = entry.log_id.index;
        }
        self.last = Some(entry.log_id);
        self.tail_bytes += weight(&entry);
        self.tail.push_back(entry);
    }

    /// Index after the last durable entry.
    pub(crate) fn flushed_end(&self) -> u64 {
        self.flushed.map_or(0, |last| last.index + 1)
    }

    /// Entries up to this one are durable now; what the tail need not hold goes.
    pub(crate) fn flushed(&mut self, last: LogId) {
        self.flushed = Some(last);
        while (self.tail.len() > TAIL_ENTRIES || self.tail_bytes > TAIL_BYTES) && self.first() <= last.index {
            self.pop_first();
        }
    }

    /// The purge is durable. It may reach beyond the last entry, when a snapshot took the place of the log.
    pub(crate) fn purge_flushed(&mut self, upto: LogId) {
        if self.flushed.is_none_or(|last| last.index < upto.index) {
            self.flushed = Some(upto);
        }
    }

    /// Entries after this one go from the disk, or are gone.
    pub(crate) fn unflushed(&mut self, last: Option<LogId>) {
        let end = last.map_or(0, |last| last.index + 1);
        if self.flushed_end() > end {
            self.flushed = last;
        }
    }

    /// Entries after this one go.
    pub(crate) fn truncate_after(&mut self, last: Option<LogId>) {
        let end = last.map_or(0, |last| last.index + 1);
        while let Some(entry) = self.tail.back()
            && entry.log_id.index >= end
        {
            self.tail_bytes -= weight(entry);
            self.tail.pop_back();
        }
        if end < self.end() {
            self.last = last.filter(|last| last.index >= self.start);
        }
    }

    /// Entries up to this one go.
    pub(crate) fn purge(&mut self, upto: LogId) {
        while self.first() <= upto.index && !self.tail.is_empty() {
            self.pop_first();
        }
        self.last = self.last.filter(|last| last.index > upto.index);
        self.purged = Some(upto);
        self.start = self.start.max(upto.index + 1);
    }

    /// Splits a range into what the disk has and what is in memory.
    pub(crate) fn split(&self, range: Range<u64>) -> (Range<u64>, impl Iterator<Item = &LogEntry>) {
        let start = range.start.max(self.start).min(self.end().max(self.start));
        let end = range.end.min(self.end()).max(start);
        let first = self.first();
        let place = |index: u64| index.saturating_sub(first) as usize;
        (start..end.min(first).max(start), self.tail.range(place(start).min(place(end))..place(end)))
    }
}
