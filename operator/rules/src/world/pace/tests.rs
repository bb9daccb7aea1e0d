//! Tests of the rate of status writes.

use super::*;

#[test]
fn a_plan_that_may_not_write_has_a_time_to_look_again() {
    let (begin, took) = (Instant::now(), Duration::from_millis(20));
    let mut pace = Pace::default();
    assert!(pace.turn(begin).may_write(false), "nothing was written yet");
    pace.wrote(begin, took);
    for (millis, at_rest, urgent) in [
        (0, false, false),
        (99, false, false),
        (100, false, true),
        (999, false, true),
        (1000, true, true),
    ] {
        let turn = pace.turn(begin + Duration::from_millis(millis));
        assert_eq!((turn.may_write(false), turn.may_write(true)), (at_rest, urgent), "{millis}");
        assert_eq!(turn.due(false), Duration::from_millis(1000 - millis));
    }
    pace.writing = true;
    assert!(!pace.turn(begin + Duration::from_secs(9)).may_write(true));
}

#[test]
fn the_slower_a_write_the_longer_the_rest_after_it() {
    let due = |took| {
        let mut pace = Pace::default();
        let begin = Instant::now();
        pace.wrote(begin, Duration::from_millis(took));
        pace.turn(begin).due(false).as_millis()
    };
    assert_eq!([due(1), due(200), due(2000)], [1000, 1600, 3000]);
}
