//! Who may ask: the token, and where a browser's request comes from.

pub(crate) mod access;
pub(crate) mod kept;
pub(crate) mod origin;
pub(crate) mod throttle;
pub(crate) mod token;
