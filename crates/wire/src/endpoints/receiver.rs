//! Takes the messages of an update together, so that the table changes at once.

use std::collections::{BTreeMap, BTreeSet};

use super::{EndpointTable, RecordKey, TableChange, TableError, TableUpdate, table::Entry};

/// Takes updates and applies them when they are complete, or not at all.
#[derive(Clone, Debug, Default)]
pub struct TableReceiver {
    table: EndpointTable,
    /// The messages so far, while an update is not complete.
    begun: Option<Begun>,
}

/// An update that is not complete.
#[derive(Clone, Debug)]
struct Begun {
    is_full: bool,
    /// The last change of each record; none removes it.
    changes: BTreeMap<RecordKey, Option<Entry>>,
}

impl TableReceiver {
    /// The last complete table.
    pub fn table(&self) -> &EndpointTable {
        &self.table
    }

    /// Takes a message. If it completes an update, returns the keys of the records that came, went or changed.
    ///
    /// # Errors
    /// [`TableError`]; the rest of the update is refused as well, with [`TableError::NoTable`] or by its digest.
    pub fn take(&mut self, update: &TableUpdate) -> Result<Option<BTreeSet<RecordKey>>, TableError> {
        let mut begun = match self.begun.take() {
            Some(begun) if !update.full => begun,
            None if !update.full && self.table.version().is_none() => return Err(TableError::NoTable),
            _ => Begun { is_full: update.full, changes: BTreeMap::new() },
        };
        for change in &update.changes {
            match change {
                TableChange::Put(shared) => {
                    let record = shared.open()?;
                    begun.changes.insert(record.key(), Some((shared.clone(), record)));
                }
                TableChange::Remove(key) => drop(begun.changes.insert(*key, None)),
            }
        }
        if !update.complete {
            self.begun = Some(begun);
            return Ok(None);
        }
        let Begun { is_full, mut changes } = begun;
        if is_full {
            for key in self.table.keys() {
                changes.entry(key).or_insert(None);
            }
        }
        self.table.apply(changes, update.version).map(Some)
    }
}
