//! Docker's HTTP conventions: filters, versions, views, errors, log frames.
