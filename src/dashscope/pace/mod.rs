//! When a call may leave: the rates of an account, learnt and shared, and the queue before them.

mod cell;
pub(crate) mod pacer;
mod queue;
pub(crate) mod rate;
