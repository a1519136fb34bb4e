//! A real browser shows the page: no error on its console, the drawing has a size, and what needs a
//! script works. Skipped, and said so, where there is no Chromium.

use std::path::{Path, PathBuf};
use std::process::Command;

use bus_check::picture::to_html;

use crate::sample::lost_write;

const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Looks at the page from inside, and writes down what it sees.
const PROBE: &str = "<script>addEventListener('load', () => {
const see = (name, value) => document.body.setAttribute('data-' + name, value);
const box = document.querySelector('svg.space').getBoundingClientRect();
see('drawn', box.width > 500 && box.height > 300);
see('events', document.querySelectorAll('.view-past .ev').length > 10);
const shown = (css) => getComputedStyle(document.querySelector(css)).display !== 'none';
see('past', shown('.view-past') && !shown('.view-all'));
document.getElementById('v-all').click();
see('all', shown('.view-all') && !shown('.view-past'));
document.getElementById('v-past').click();
document.querySelector('.story a').dispatchEvent(new MouseEvent('mouseenter'));
see('lit', document.querySelectorAll('svg.space .on').length > 0);
document.querySelector('.story a').dispatchEvent(new MouseEvent('mouseleave'));
const space = document.querySelector('svg.space');
for (const key of ['ArrowDown', 'ArrowDown', 'ArrowLeft', 'ArrowUp']) {
  space.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
}
see('look', !document.getElementById('look').hidden);
see('links', [...document.querySelectorAll('.story a')].every(
  (a) => document.getElementById(a.getAttribute('href').slice(1))));
see('twice', new Set([...document.querySelectorAll('[id]')].map((n) => n.id)).size
  === document.querySelectorAll('[id]').length);
see('end', 'true');
});</script></body>";

#[test]
fn a_browser_shows_the_page() {
    let Some(browser) = browser() else {
        println!("skipped: none of {} is on the path", BROWSERS.join(", "));
        return;
    };
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("picture-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the page");
    let file = folder.join("picture.html");
    let page = to_html(&lost_write()).replace("</body>", PROBE);
    std::fs::write(&file, page).expect("the page is written");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"])
        .args(["--disable-background-networking", "--disable-component-update"])
        .args(["--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=2000"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("file://{}", file.display()))
        .output()
        .expect("the browser runs");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    let (page, log) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let complaints: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    for seen in ["drawn", "events", "past", "all", "lit", "look", "links", "twice", "end"] {
        assert!(page.contains(&format!("data-{seen}=\"true\"")), "not {seen}: {log}");
    }
}

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    BROWSERS.iter().find_map(|name| {
        folders.iter().map(|folder| folder.join(name)).find(|file| Path::is_file(file))
    })
}
