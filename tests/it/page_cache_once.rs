//! A page is made once, whoever asks and whatever happens meanwhile.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware;
use axum::middleware::Next;
use axum::routing::get;
use houseboat::cache::Ttl;
use houseboat::http::PageCache;
use houseboat::http::Pages;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::raw::Raw;
use crate::support::served::Served;
use crate::support::waiting::wait_for;

const MINUTE: Duration = Duration::from_mins(1);
const PATIENCE: Duration = Duration::from_secs(20);
const VISITORS: usize = 1_000;

/// A page that is made when the test says so.
#[derive(Clone)]
struct Gated {
    /// How many requests have come to the layer.
    come: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
    panics: Arc<AtomicBool>,
    /// How many requests have ended at the layer, answered or given up.
    over: Arc<AtomicUsize>,
}

/// Counts when it goes.
struct Over(Arc<AtomicUsize>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Gated {
    async fn serve(layer: PageCache) -> (Self, Arc<Served>) {
        let page = Self {
            come: Arc::default(),
            begun: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            panics: Arc::default(),
            over: Arc::default(),
        };
        let (handler, around) = (page.clone(), page.clone());
        let handler = async move |headers: HeaderMap| {
            let count = handler.begun.fetch_add(1, Ordering::SeqCst) + 1;
            handler.gate.acquire().await.unwrap().forget();
            assert!(!handler.panics.load(Ordering::SeqCst), "on purpose");
            let language = headers.get("accept-language");
            let language = language.map_or("", |value| value.to_str().unwrap());
            (
                [("vary", "accept-language")],
                format!("page {count} {language}"),
            )
        };
        let counts = move |request: Request, next: Next| {
            around.come.fetch_add(1, Ordering::SeqCst);
            let over = Over(Arc::clone(&around.over));
            async move {
                let _over = over;
                next.run(request).await
            }
        };
        let routes = Router::new().route("/page", get(handler)).layer(layer);
        let routes = routes.layer(middleware::from_fn(counts));
        let site = Served::start(routes).await;
        (page, Arc::new(site))
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    async fn until_begun(&self, count: usize) {
        let all = async || (self.begun() >= count).then_some(());
        wait_for("handler that has begun", PATIENCE, all).await;
    }

    async fn until_come(&self, count: usize) {
        let all = async || (self.come.load(Ordering::SeqCst) >= count).then_some(());
        wait_for("request at the layer", PATIENCE, all).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_visitors_of_a_cold_page_have_it_made_once() {
    let (page, site) = Gated::serve(PageCache::new(MINUTE)).await;
    let connecting = (0..VISITORS).map(|_| Raw::connect(site.address));
    let mut visitors = JoinSet::new();
    for mut visitor in futures_util::future::join_all(connecting).await {
        visitors.spawn(async move {
            visitor.ask("GET", "/page", &[]).await;
            visitor.answer().await.text()
        });
    }
    page.until_come(VISITORS).await;
    page.gate.add_permits(VISITORS);
    let pages = visitors.join_all().await;
    assert_eq!(pages.len(), VISITORS);
    assert!(
        pages.iter().all(|text| text == "page 1 "),
        "{:?}",
        pages.iter().max()
    );
    assert_eq!(page.begun(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_variant_of_a_cold_page_is_made_once() {
    let (page, site) = Gated::serve(PageCache::new(MINUTE)).await;
    let mut visitors = JoinSet::new();
    for index in 0..60 {
        let site = Arc::clone(&site);
        visitors.spawn(async move {
            let language = ["de", "en", "fr"][index % 3];
            let header = format!("accept-language: {language}");
            let text = site.ask("GET", "/page", &[&header]).await.text();
            assert!(text.ends_with(language), "{text} for {language}");
        });
    }
    page.until_come(60).await;
    page.gate.add_permits(60);
    visitors.join_all().await;
    assert_eq!(page.begun(), 3);
}

#[tokio::test]
async fn nobody_waits_for_a_page_that_is_stale() {
    let ttl = Ttl::fresh(MINUTE).stale(10 * MINUTE);
    let (page, site) = Gated::serve(PageCache::new(ttl)).await;
    page.gate.add_permits(1);
    assert_eq!(site.get("/page").await.text(), "page 1 ");
    site.advance(61);
    for _ in 0..20 {
        let stale = site.get("/page").await;
        assert_eq!(
            (stale.text().as_str(), stale.header("age")),
            ("page 1 ", "61")
        );
    }
    page.until_begun(2).await;
    page.gate.add_permits(10);
    let new = async || (site.get("/page").await.text() == "page 2 ").then_some(());
    wait_for("new page", PATIENCE, new).await;
    assert_eq!(page.begun(), 2);
    // And when that time is over as well, it is no longer good enough.
    site.advance(11 * 60 + 1);
    assert_eq!(site.get("/page").await.text(), "page 3 ");
}

#[tokio::test]
async fn a_visitor_who_leaves_does_not_end_the_making() {
    let (page, site) = Gated::serve(PageCache::new(MINUTE)).await;
    let mut visitor = Raw::connect(site.address).await;
    visitor.ask("GET", "/page", &[]).await;
    page.until_begun(1).await;
    drop(visitor);
    let left = async || (page.over.load(Ordering::SeqCst) == 1).then_some(());
    wait_for("sign that the visitor has left", PATIENCE, left).await;
    page.gate.add_permits(1);
    assert_eq!(site.get("/page").await.text(), "page 1 ");
    assert_eq!(page.begun(), 1);
}

#[tokio::test]
async fn a_page_that_was_forgotten_while_it_was_made_is_not_kept() {
    for warm in [false, true] {
        let (page, site) = Gated::serve(PageCache::new(MINUTE)).await;
        let pages = Pages::of(&site.context.cache);
        let mut expected = 1;
        if warm {
            // The path is known, and what its pages depend on.
            page.gate.add_permits(1);
            site.get("/page").await;
            site.advance(61);
            expected = 2;
        }
        let mut visitor = Raw::connect(site.address).await;
        visitor.ask("GET", "/page", &[]).await;
        page.until_begun(expected).await;
        // What the handler has read is old from here.
        let forget = pages.clone();
        let database = &site.context.database;
        database
            .write(move |tx| {
                forget.forget(tx, "/page");
                Ok(())
            })
            .await
            .unwrap();
        page.gate.add_permits(10);
        assert_eq!(visitor.answer().await.text(), format!("page {expected} "));
        assert_eq!(
            site.get("/page").await.text(),
            format!("page {} ", expected + 1)
        );
        assert_eq!(page.begun(), expected + 1);
    }
}

#[tokio::test]
async fn a_page_is_forgotten_with_the_commit_and_not_without() {
    let (page, site) = Gated::serve(PageCache::new(MINUTE)).await;
    page.gate.add_permits(10);
    let pages = Pages::of(&site.context.cache);
    site.get("/page").await;
    let database = &site.context.database;
    let forget = pages.clone();
    let rolled_back = database.write(move |tx| {
        forget.forget(tx, "/page");
        forget.forget_all(tx);
        tx.execute("INSERT INTO nowhere VALUES (1)", [])?;
        Ok(())
    });
    rolled_back.await.unwrap_err();
    assert_eq!(site.get("/page").await.text(), "page 1 ");
    let forget = pages.clone();
    let all = database.write(move |tx| {
        forget.forget_all(tx);
        Ok(())
    });
    all.await.unwrap();
    assert_eq!(site.get("/page").await.text(), "page 2 ");
}

#[tokio::test]
async fn a_panic_is_a_page_for_its_visitor_and_nothing_is_kept() {
    let (page, site) = Gated::serve(PageCache::new(MINUTE)).await;
    page.panics.store(true, Ordering::SeqCst);
    page.gate.add_permits(10);
    let failed = site.get("/page").await;
    assert_eq!(failed.status, 500);
    assert!(
        failed.text().contains("Something went wrong"),
        "{}",
        failed.text()
    );
    page.panics.store(false, Ordering::SeqCst);
    assert_eq!(site.get("/page").await.text(), "page 2 ");
}

#[tokio::test]
async fn pages_outlive_the_handlers_failures_while_they_are_stale() {
    let ttl = Ttl::fresh(MINUTE).stale(10 * MINUTE);
    let (page, site) = Gated::serve(PageCache::new(ttl)).await;
    page.gate.add_permits(1);
    site.get("/page").await;
    site.advance(61);
    page.panics.store(true, Ordering::SeqCst);
    page.gate.add_permits(1_000);
    for _ in 0..10 {
        assert_eq!(site.get("/page").await.text(), "page 1 ");
        site.advance(2);
    }
    page.until_begun(2).await;
}
