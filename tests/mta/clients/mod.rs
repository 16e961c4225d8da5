//! Customers' mail servers and programs, through Postfix and relaykeeper: real ones where Debian has them, else what is
//! known of how they talk.

mod dialogues;
mod programs;
