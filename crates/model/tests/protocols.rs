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

#[test]
fn one_checkout_probes_at_a_time() {
    model::one_checkout_probes_at_a_time();
}

#[test]
fn limit_of_the_ramp_holds() {
    model::limit_of_the_ramp_holds();
}

#[test]
fn cancelled_wait_passes_its_wake_up_on() {
    model::cancelled_wait_passes_its_wake_up_on();
}

#[test]
fn last_return_closes_the_surplus() {
    model::last_return_closes_the_surplus();
}

#[test]
fn cancelled_checkout_leaves_no_surplus() {
    model::cancelled_checkout_leaves_no_surplus();
}

#[test]
fn served_checkout_hides_no_surplus() {
    model::served_checkout_hides_no_surplus();
}

#[test]
fn resized_pool_keeps_its_places() {
    model::resized_pool_keeps_its_places();
}

#[test]
fn shrunk_pool_withholds_its_places() {
    model::shrunk_pool_withholds_its_places();
}

#[test]
fn reader_sees_each_checkout_once() {
    model::reader_sees_each_checkout_once();
}

#[test]
fn keys_are_used_once() {
    model::keys_are_used_once();
}

#[test]
fn hint_follows_the_queue() {
    model::hint_follows_the_queue();
}
