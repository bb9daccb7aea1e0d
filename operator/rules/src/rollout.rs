//! Decisions about one FlashRollout.
