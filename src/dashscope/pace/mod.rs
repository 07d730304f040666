//! When a call may leave: the rates of an account, learnt and shared, and the queue for them.

pub(crate) mod controller;
mod fair_queue;
pub(crate) mod queue;
mod shared;
