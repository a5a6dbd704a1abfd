//! The models; each takes some seconds.

use poolscope_model as model;

#[test]
fn reader_counts_no_use_twice() {
    model::reader_counts_no_use_twice();
}

#[test]
fn writers_take_turns() {
    model::writers_take_turns();
}

#[test]
fn settled_task_has_sent_everything() {
    model::settled_task_has_sent_everything();
}

#[test]
fn deferred_check_is_made() {
    model::deferred_check_is_made();
}

#[test]
fn wait_sees_the_last_run() {
    model::wait_sees_the_last_run();
}
