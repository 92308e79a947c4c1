//! The commands that all kinds of named objects have.

mod create;
mod inspect;
mod ls;
mod rm;
mod update;

pub(crate) use self::{
    create::Create,
    inspect::{Inspect, page},
    ls::Ls,
    rm::Rm,
    update::Update,
};

/// A kind of named object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// Its name, such as `secret`.
    pub(crate) name: &'static str,
    /// Its path, such as `/secrets`.
    pub(crate) path: &'static str,
    /// The data of one has fewer bytes.
    pub(crate) bytes_limit: usize,
}
