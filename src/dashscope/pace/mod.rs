//! When a call may leave: the rates of an account, learnt and shared, and the queue before them.

pub(crate) mod controller;
mod fair_queue;
pub(crate) mod queue;
mod shared;
