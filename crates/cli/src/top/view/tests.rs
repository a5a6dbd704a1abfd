use std::time::UNIX_EPOCH;

use crossterm::event::KeyCode;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};

use super::*;
use crate::top::model::{Holder, Pool, State, Verdict, Waiter};

const THEME: Theme = Theme { is_color: true, is_utf8: true };

fn pool(name: &str) -> Pool {
    let verdict = Verdict {
        cause: "leak".to_owned(),
        since: Some(74.2),
        finding: "`GET /customers/count` does not return its connections".to_owned(),
        call_site: "src/customers.rs:42".to_owned(),
        evidence: "suspected_leaks 4, used_share 0.98 (usually 0.4)".to_owned(),
        consequences: "undersized".to_owned(),
        advice: "Return the connection on every path.".to_owned(),
    };
    let holder = |age: f64| Holder {
        operation: "GET /customers/count".to_owned(),
        call_site: "src/customers.rs:42".to_owned(),
        age,
        activity: "idle".to_owned(),
        queries: 1,
        backend_pid: Some(4711),
        flags: "L".to_owned(),
        ..Holder::default()
    };
    let waiter = |age: f64| Waiter {
        operation: "POST /orders".to_owned(),
        call_site: "src/orders.rs:7".to_owned(),
        age,
        phase: "queue".to_owned(),
        ..Waiter::default()
    };
    Pool {
        name: name.to_owned(),
        state: State { used: 10, waiting: 3, max: 10, ..State::default() },
        verdict,
        holders: (0..10).map(|second| holder(f64::from(second) + 60.0)).collect(),
        waiters: (0..3).map(|second| waiter(f64::from(second))).collect(),
        ..Pool::default()
    }
}

fn app(exporters: usize) -> App {
    let mut app = App::new((1..=exporters).map(|number| format!("http://shop-{number}:9719")));
    for exporter in 0..exporters {
        let before = Pool { state: State { used: 5, max: 10, ..State::default() }, ..pool("shop") };
        app.update(exporter, Ok(vec![before]));
        app.update(exporter, Ok(vec![pool("shop")]));
    }
    app
}

fn draw_with(app: &App, width: u16, height: u16, theme: Theme) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app, theme, UNIX_EPOCH)).unwrap();
    terminal
}

fn lines(app: &App, width: u16, height: u16) -> Vec<String> {
    let terminal = draw_with(app, width, height, THEME);
    let buffer = terminal.backend().buffer();
    let line = |row: &[ratatui::buffer::Cell]| row.iter().map(|cell| cell.symbol()).collect::<String>();
    buffer.content.chunks(width.into()).map(|row| line(row).trim_end().to_owned()).collect()
}

#[test]
fn smallest_common_terminal_shows_everything() {
    let shown = lines(&app(1), 80, 24);
    let expected = "\
poolscope top  1 pool, 1 with a problem                             00:00:00 UTC
http://shop-1:9719
POOL                    VERDICT               SINCE      USED  WAIT used
shop                    leak                  1m14s     10/10     3           ▄█
shop: leak for 1m14s
`GET /customers/count` does not return its connections
at src/customers.rs:42
advice: Return the connection on every path.
evidence: suspected_leaks 4, used_share 0.98 (usually 0.4)
consequences: undersized
used 10 of 10                                                                 ▄█
waiting 3, peak 3                                                             _█
Holders: 10
    AGE    ACTIVITY                PID OPERATION            CALL SITE
  1m09s L  idle                   4711 GET /customers/count src/customers.rs:42
  1m08s L  idle                   4711 GET /customers/count src/customers.rs:42
  1m07s L  idle                   4711 GET /customers/count src/customers.rs:42
  1m06s L  idle                   4711 GET /customers/count src/customers.rs:42
Waiters: 3
    AGE    PHASE    OPERATION                      CALL SITE
  2.00s    queue    POST /orders                   src/orders.rs:7
  1.00s    queue    POST /orders                   src/orders.rs:7
  0.00s    queue    POST /orders                   src/orders.rs:7
? help  Tab list  / filter  > sort  I invert  Z freeze  q quit";
    assert_eq!(shown.join("\n"), expected, "\n{}", shown.join("\n"));
}

#[test]
fn proxied_pool_has_no_waits() {
    let mut app = App::new(["http://proxy:9719".to_owned()]);
    app.update(0, Ok(vec![Pool { is_proxied: true, waiters: Vec::new(), ..pool("api app@shop") }]));
    let shown = lines(&app, 80, 24);
    let text = shown.join("\n");
    assert!(shown[3].contains("10/10     -"), "{text}");
    assert!(shown.iter().any(|line| line.starts_with("used 10 of 10")), "{text}");
    assert!(!text.contains("waiting") && !text.contains("Waiters"), "{text}");
    // The rows that the waiters would have.
    assert_eq!(shown.iter().filter(|line| line.contains(" L  idle")).count(), 10, "{text}");
    app.key(KeyCode::Tab.into());
    assert_eq!(app.focus, Focus::Holders);
    app.key(KeyCode::Tab.into());
    assert_eq!(app.focus, Focus::Pools);

    // The list in focus goes with the pool.
    app.update(0, Ok(vec![pool("api")]));
    app.focus = Focus::Waiters;
    app.update(0, Ok(vec![Pool { is_proxied: true, ..pool("api app@shop") }]));
    assert_eq!(app.focus, Focus::Holders);
}

#[test]
fn larger_terminals_show_more() {
    let shown = lines(&app(1), 160, 50);
    let text = shown.join("\n");
    for part in [" SILENT QUERIES OPERATION", "HOLDS", "TRACE", "idle 0, creating 0, closing 0"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert_eq!(shown.iter().filter(|line| line.contains(" L  idle")).count(), 10, "{text}");
    assert!(shown.iter().all(|line| line.chars().count() <= 160));
}

#[test]
fn exporters_are_side_by_side_as_far_as_they_fit() {
    let mut app = app(5);
    app.update(1, Err("connection refused".to_owned()));
    let shown = lines(&app, 120, 24);
    assert!(shown[0].contains("5 pools, 5 with a problem, 4 of 5 exporters answering"), "{}", shown[0]);
    let title = &shown[1];
    assert!(title.contains("shop-1:9719") && title.contains("shop-3:9719") && title.contains("3/5"), "{title}");
    assert!(shown[2..5].iter().any(|line| line.contains("no answer: connection refused")), "{shown:?}");
    // The selected one is always visible.
    for _ in 0..4 {
        app.key(KeyCode::Right.into());
    }
    let title = &lines(&app, 120, 24)[1];
    assert!(title.contains("shop-5:9719") && !title.contains("shop-2:9719"), "{title}");
    assert!(lines(&app, 80, 24)[1].contains("shop-4:9719"));
}

#[test]
fn colors_and_other_characters_can_be_off() {
    let styles = |theme| {
        let terminal = draw_with(&app(1), 80, 24, theme);
        let buffer = terminal.backend().buffer().clone();
        let is_colored = buffer.content.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        let is_bold = buffer.content.iter().any(|cell| cell.modifier.contains(Modifier::BOLD));
        let is_ascii = buffer.content.iter().all(|cell| cell.symbol().is_ascii());
        (is_colored, is_bold, is_ascii)
    };
    assert_eq!(styles(THEME), (true, true, false));
    assert_eq!(styles(Theme { is_color: false, is_utf8: false }), (false, true, true));
}

#[test]
fn no_size_panics() {
    let mut many = app(3);
    many.update(0, Ok((0..300).map(|number| pool(&format!("東京-{number}"))).collect()));
    many.update(2, Err("x".repeat(300)));
    for focus in [Focus::Pools, Focus::Holders, Focus::Waiters] {
        many.focus = focus;
        many.holders.first = 8;
        for (width, height) in [(1, 1), (39, 24), (40, 10), (41, 11), (57, 13), (80, 24), (77, 100), (300, 12)] {
            for app in [&many, &app(1), &App::new(["a".to_owned()]), &App::new([])] {
                lines(app, width, height);
            }
        }
    }
    many.is_help = true;
    assert!(lines(&many, 80, 24).iter().any(|line| line.contains("Ctrl-Z         suspend")));
    assert!(lines(&many, 10, 5)[0].starts_with("40x10 need"));
}

#[test]
fn every_key_of_the_help_fits_the_smallest_terminal() {
    let mut app = app(1);
    app.is_help = true;
    let shown = lines(&app, 80, 24);
    assert!(shown.iter().all(|line| line.chars().count() < 80), "{shown:?}");
    assert!(shown.iter().any(|line| line.starts_with("  flags W M")), "{shown:?}");
}

#[test]
fn filter_being_typed_and_lists_in_focus_are_visible() {
    let mut app = app(1);
    for key in [KeyCode::Tab, KeyCode::Char('/'), KeyCode::Char('x')] {
        app.key(key.into());
    }
    let shown = lines(&app, 80, 24);
    assert_eq!(shown[23], "Filter: x_");
    assert!(shown.contains(&"Holders: 0 of 10, filter \"x\"".to_owned()), "{shown:?}");
    app.key(KeyCode::Esc.into());
    app.key(KeyCode::Down.into());
    assert!(lines(&app, 80, 24).contains(&"Holders: 10, from 2".to_owned()));
}
