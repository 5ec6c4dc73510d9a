//go:build browser

package page

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kedr/internal/report/sample"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// browser is a page in a browser of its own. What the page has to complain of, and what
// it asks anybody for, fails the test.
type browser struct {
	*testing.T
	ctx context.Context
}

func open(t *testing.T, page string) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("%v: make browser installs it", err)
	}
	file := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	flags := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.WindowSize(1240, 1000),
		chromedp.WSURLReadTimeout(2*time.Minute))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, flags...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	address := "file://" + file
	b := &browser{t, ctx}
	err = chromedp.Listen(ctx, func(e any) {
		switch e := e.(type) {
		case *runtime.EventConsoleAPICalled:
			for _, a := range e.Args {
				t.Errorf("the console has: %s: %+v", e.Type, *a)
			}
		case *runtime.EventExceptionThrown:
			t.Errorf("the program failed: %v", e.ExceptionDetails)
		case *log.EventEntryAdded:
			t.Errorf("the browser complains: %s %s", e.Entry.Text, e.Entry.URL)
		case *network.EventRequestWillBeSent:
			if url, _, _ := strings.Cut(e.Request.URL, "#"); url != address {
				t.Errorf("the page asked for %s", e.Request.URL)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	b.call(chromedp.Call(ctx, log.Enable, cdp.Empty{}))
	b.call(chromedp.Call(ctx, network.Enable, network.EnableParams{}))
	b.do(chromedp.Navigate(address))
	return b
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.Fatal(err)
	}
}

// call checks a command of the browser's own.
func (b *browser) call(_ cdp.Empty, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func get[T any](b *browser, a chromedp.Action[T]) T {
	b.Helper()
	v, err := chromedp.Run(b.ctx, a)
	if err != nil {
		b.Fatal(err)
	}
	return v
}

func (b *browser) press(keys ...string) {
	b.Helper()
	for _, k := range keys {
		b.do(chromedp.KeyEvent(k))
	}
}

// eval is the value of an expression in the page.
func (b *browser) eval(expression string) string {
	b.Helper()
	return get(b, chromedp.Evaluate[string]("String("+expression+")"))
}

func (b *browser) want(expression, want string) {
	b.Helper()
	if got := b.eval(expression); got != want {
		b.Errorf("%s is %q, not %q", expression, got, want)
	}
}

// tabTo presses Tab until an expression about the focus is true.
func (b *browser) tabTo(expression string) {
	b.Helper()
	for range 40 {
		b.press(kb.Tab)
		if b.eval(expression) == "true" {
			return
		}
	}
	b.Fatalf("Tab does not lead to %s", expression)
}

const (
	focused = "document.activeElement"
	now     = "document.querySelector('.now').textContent"
)

// TestBrowserKeyboard: all that the page can do, it does without a mouse.
func TestBrowserKeyboard(t *testing.T) {
	b := open(t, html(t, Options{Sources: sample.Examples(t)}, sample.Report(t, "odd")))
	b.press(kb.Tab)
	b.want(focused+".className", "skip")
	b.press(kb.Enter, kb.Tab)
	b.want(focused+".value", "bytes") // what comes first in the result

	b.tabTo(focused + ".tagName === 'g'")
	b.want(now, "all: 130 bytes, 6 objects (100.0% of the bytes)")
	b.press(kb.ArrowDown)
	b.want(now, "do_one_initcall: 80 bytes, 4 objects (61.5% of the bytes)")
	b.press(kb.ArrowRight)
	b.want(now, "helper [other]: 50 bytes, 1 object (38.5% of the bytes)")
	b.press(kb.ArrowLeft, kb.ArrowDown)
	b.want(now, "hello_init [hello_kernel]: 80 bytes, 4 objects (61.5% of the bytes)")
	b.want("getComputedStyle("+focused+".querySelector('rect')).strokeWidth", "4px") // the focus is seen

	const width = focused + ".querySelector('svg').getAttribute('width')"
	b.press(kb.Enter)
	b.want(width, "100%")
	b.want("document.querySelector('.reset').disabled", "false")
	b.want("document.querySelectorAll('.graph:first-of-type [aria-label^=helper]').length", "0")
	b.press(kb.ArrowUp)
	b.want(now, "do_one_initcall: 80 bytes, 4 objects (61.5% of the bytes)")
	b.press(kb.Escape)
	b.want(now, "all: 130 bytes, 6 objects (100.0% of the bytes)")
	b.want("document.querySelector('.reset').disabled", "true")

	// One frame is in the order of Tab, however many there are.
	b.want("document.querySelectorAll('g[tabindex=\"0\"]').length", "1")

	b.do(chromedp.Focus(chromedp.CSS("input[value=bytes]")))
	b.press(kb.ArrowRight)
	b.want("[...document.querySelectorAll('.graph')].filter(g => g.checkVisibility()).map(g => g.dataset.measure)", "objects")
	b.tabTo(focused + ".tagName === 'g'")
	b.want(now, "all: 130 bytes, 6 objects (100.0% of the objects)")

	const first = "document.querySelector('.sites').tBodies[0].id"
	b.want(first, "r1-leak-1")
	b.tabTo(focused + ".textContent === 'Function'")
	b.press(kb.Enter)
	b.want(first, "r1-leak-5") // hello_exit
	b.want(focused+".parentElement.ariaSort", "ascending")
	b.press(kb.Enter)
	b.want(focused+".parentElement.ariaSort", "descending")
	b.want(first, "r1-leak-1") // myfunc4
	b.do(chromedp.Focus(chromedp.CSS("th:nth-child(2) button")))
	b.press(kb.Enter)
	b.want(first, "r1-leak-2") // two objects

	// Tab goes through a table that is wider than the page, and opens a stack.
	b.tabTo(focused + ".tagName === 'SUMMARY' && !" + focused + ".parentElement.open")
	b.press(kb.Enter)
	b.want(focused+".parentElement.open", "true")

	b.do(chromedp.Focus(chromedp.CSS(".filter")))
	b.press("m", "y", "f", "u", "n", "c", "2", " ", "2", "8")
	b.want("document.querySelector('.matches').textContent", "1 of 5 call stacks")
	b.want("[...document.querySelectorAll('.sites > tbody')].filter(e => e.checkVisibility()).map(e => e.id)", "r1-leak-3")
	b.do(chromedp.Focus(chromedp.CSS(".expand")))
	b.press(kb.Enter)
	b.want("document.querySelectorAll('.more > td > details:not([open])').length", "0")
}

// TestBrowserLink: an address with a leak in it shows that leak.
func TestBrowserLink(t *testing.T) {
	b := open(t, html(t, Options{}, sample.Report(t, "hello")))
	b.want("document.querySelector('#r1-leak-3 details').open", "false")
	b.eval("location.hash = '#r1-leak-3'")
	if !get(b, chromedp.Poll[bool]("document.querySelector('#r1-leak-3 details').open")) {
		t.Error("it is closed")
	}
}

// TestBrowserMouse: a click is a zoom.
func TestBrowserMouse(t *testing.T) {
	b := open(t, html(t, Options{}, sample.Report(t, "odd")))
	b.do(chromedp.Click(chromedp.CSS(".graph [aria-label^=helper]")))
	b.want("document.querySelectorAll('.graph:first-of-type [aria-label^=do_one_initcall]').length", "0")
	b.do(chromedp.Click(chromedp.CSS(".reset")))
	b.want(now, "all: 130 bytes, 6 objects (100.0% of the bytes)")
}

// TestBrowserWithoutProgram: with scripts off, all is there to be read.
func TestBrowserWithoutProgram(t *testing.T) {
	b := open(t, html(t, Options{Sources: sample.Examples(t)}, sample.Report(t, "odd")))
	b.call(chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}))
	b.do(chromedp.Reload())
	text := get(b, chromedp.Text(chromedp.CSS("body")))
	graphs := get(b, chromedp.TextContent(chromedp.CSS(".graph")))
	for _, want := range []string{"6 possible leaks of 130 bytes", "Calls of kmemdup were not seen", "myfunc4+0x1b/0x2d", "ptr1 = vmalloc(50);", "Mismatched release", "seconds since boot"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	for _, not := range []string{"arrow keys", "Filter", "Show all"} {
		if strings.Contains(text, not) {
			t.Errorf("%q, which needs the program", not)
		}
	}
	if !strings.Contains(graphs, "helper [other]") {
		t.Errorf("the graph has %q", graphs)
	}
}

// colours finds text that is too faint, by what the browser makes of the style sheet.
const colours = `(() => {
	const parse = (s) => s.match(/[\d.]+/g).map(Number);
	const lum = (s) => {
		const [r, g, b] = parse(s).map((c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const behind = (e) => {
		if (e.tagName === "text") {
			const rect = e.parentElement.querySelector(":scope > rect");
			if (rect) return getComputedStyle(rect).fill;
		}
		for (; e; e = e.parentElement) {
			const c = getComputedStyle(e).backgroundColor, p = parse(c);
			if (p.length < 4 || p[3] > 0) return c;
		}
	};
	document.querySelectorAll("details").forEach((d) => { d.open = true; });
	const faint = [];
	let n = 0;
	for (const e of document.body.querySelectorAll("*")) {
		if (!e.checkVisibility() || ["SCRIPT", "title"].includes(e.tagName) || ![...e.childNodes].some((c) => c.nodeType === 3 && c.data.trim())) continue;
		const style = getComputedStyle(e), a = lum(e.tagName === "text" ? style.fill : style.color), b = lum(behind(e));
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		n++;
		if (ratio < 4.5) faint.push(e.tagName + "." + e.getAttribute("class") + " " + ratio.toFixed(2) + " " + e.textContent.slice(0, 30));
	}
	return n > 50 ? faint.join("\n") : "only " + n + " texts";
})()`

// TestBrowserSchemes: text can be read in both schemes, and the page fits a telephone.
func TestBrowserSchemes(t *testing.T) {
	for _, name := range []string{"odd", "clean", "hello"} {
		b := open(t, html(t, Options{Sources: sample.Examples(t)}, sample.Report(t, name), sample.Report(t, "clean"), sample.LeftOut(t)[0]))
		pages := make(map[string]bool)
		for _, scheme := range []string{"light", "dark"} {
			b.call(chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
			}))
			if faint := b.eval(colours); faint != "" {
				t.Errorf("%s, %s:\n%s", name, scheme, faint)
			}
			pages[b.eval("getComputedStyle(document.body).backgroundColor")] = true
		}
		if len(pages) != 2 {
			t.Errorf("the schemes have %v", pages)
		}
		b.do(chromedp.EmulateViewport(360, 640))
		b.want("document.documentElement.scrollWidth", "360")
	}
}

// TestBrowserLarge: a page of many call stacks works as well.
func TestBrowserLarge(t *testing.T) {
	b := open(t, html(t, Options{}, sample.Many(1000, 100_000)))
	b.want("document.querySelectorAll('.sites > tbody').length", "1000")
	b.do(chromedp.Focus(chromedp.CSS("g[tabindex=\"0\"]")))
	b.press(kb.ArrowDown, kb.ArrowDown, kb.Enter)
	if before := b.eval(now); !strings.HasPrefix(before, "function_") {
		t.Error(before)
	}
	b.do(chromedp.Focus(chromedp.CSS("th button")))
	b.press(kb.Enter)
	b.want("document.querySelector('.sites').tBodies[0].id", "r1-leak-1") // it has the fewest bytes
}

// TestBrowserPicture makes the picture in the documents: -update keeps it.
func TestBrowserPicture(t *testing.T) {
	r := sample.Report(t, "hello")
	r.Notes = nil
	b := open(t, html(t, Options{Sources: sample.Examples(t)}, r))
	b.do(chromedp.EmulateViewport(1100, 1250))
	picture := get(b, chromedp.CaptureScreenshot())
	if len(picture) < 20_000 || len(picture) > 200_000 || string(picture[1:4]) != "PNG" {
		t.Errorf("%d bytes: %.8q", len(picture), picture)
	}
	if *sample.Update {
		if err := os.WriteFile("../../../docs/html-report.png", picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// What is drawn is there: the browser has laid the graph out over the page's width.
	b.want("Math.round(document.querySelector('.graph rect').getBoundingClientRect().width)", b.eval("Math.round(document.querySelector('.flame').clientWidth)"))
}
