//! The protocol's specification, chapter by chapter: the same Markdown files that lie in `spec/`, shown here so that one
//! place has both the words and the code. Requirements have names like \[CELL-3\]; the numbers in tables headed
//! *constant* are held equal to the code by `tests/tests/spec.rs`. Neighbours: every file that says "spec chapter".

#[doc = include_str!("../spec/00-overview.md")]
pub mod overview {}

#[doc = include_str!("../spec/05-glossary.md")]
pub mod glossary {}

#[doc = include_str!("../spec/10-keys.md")]
pub mod keys {}

#[doc = include_str!("../spec/20-directory.md")]
pub mod directory {}

#[doc = include_str!("../spec/30-links.md")]
pub mod links {}

#[doc = include_str!("../spec/40-cells.md")]
pub mod cells {}

#[doc = include_str!("../spec/50-builds.md")]
pub mod builds {}

#[doc = include_str!("../spec/60-paths.md")]
pub mod paths {}

#[doc = include_str!("../spec/70-sessions.md")]
pub mod sessions {}

#[doc = include_str!("../spec/80-names.md")]
pub mod names {}

#[doc = include_str!("../spec/90-promises.md")]
pub mod promises {}
