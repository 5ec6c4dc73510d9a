package distro

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// apt is a private apt: its own lists and cache, the host's mirrors and keys.
type apt struct {
	store *Store
	dir   string
	args  []string
}

// keyring signs all of Debian's suites.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// extraSuites are where kernels are that the host's own suite may not have.
var extraSuites = []string{"bookworm", "bullseye", "trixie", "trixie-backports"}

// listsAge is how old package lists may get: archives drop old kernels.
const listsAge = 24 * time.Hour

func (s *Store) apt(arch Arch) (*apt, error) {
	a := &apt{store: s, dir: filepath.Join(s.Dir, "apt")}
	if arch != AMD64 {
		a.dir += "-" + string(arch)
	}
	for _, d := range []string{"lists/partial", "archives/partial", "etc"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("no place for package lists: %w", err)
		}
	}
	status := filepath.Join(a.dir, "status")
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return nil, fmt.Errorf("no place for package lists: %w", err)
	}
	for _, o := range []string{
		"Dir::State::lists=" + filepath.Join(a.dir, "lists"),
		"Dir::State::status=" + status,
		"Dir::Cache=" + a.dir,
		"Dir::Cache::archives=" + filepath.Join(a.dir, "archives"),
		"Dir::Etc::sourcelist=" + filepath.Join(a.dir, "etc", "sources.list"),
		"Dir::Etc::sourceparts=-",
		"Dir::Etc::preferencesparts=-",
		"APT::Sandbox::User=", // the cache is ours alone
		"APT::Architecture=" + string(arch),
		"APT::Architectures=" + string(arch),
		"Acquire::Languages=none",
	} {
		a.args = append(a.args, "-o", o)
	}
	return a, nil
}

// mirror is where the host gets its packages.
type mirror struct{ site, suite string }

// hostMirrors reads the host's own configuration; every form of it, as apt does.
func hostMirrors(ctx context.Context) ([]mirror, error) {
	out, err := output(ctx, "apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)",
		"Created-By: Packages", "Component: main")
	if err != nil {
		return nil, fmt.Errorf("reading the host's apt configuration: %w", err)
	}
	return parseMirrors(out), nil
}

func parseMirrors(out string) []mirror {
	var ms []mirror
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 2 {
			if m := (mirror{f[0], f[1]}); !slices.Contains(ms, m) {
				ms = append(ms, m)
			}
		}
	}
	return ms
}

// suiteRE is Debian's suites: others on the host's list hold no kernels.
var suiteRE = regexp.MustCompile(`^(bullseye|bookworm|trixie|forky|sid|stable|testing|unstable|oldstable)(-security|-updates|-backports)?$`)

// sources writes the private sources.list: the host's suites, or one more.
func sources(ms []mirror, extra string) (string, error) {
	var main, security string
	var b strings.Builder
	line := func(site, suite string) {
		fmt.Fprintf(&b, "deb [signed-by=%s] %s %s main\n", keyring, site, suite)
	}
	for _, m := range ms {
		if !suiteRE.MatchString(m.suite) {
			continue
		}
		if strings.HasSuffix(m.suite, "-security") {
			security = m.site
		} else if main == "" {
			main = m.site
		}
		if extra == "" {
			line(m.site, m.suite)
		}
	}
	if main == "" {
		return "", errors.New("the host's apt configuration names no Debian mirror: kernels come from there")
	}
	if extra != "" {
		line(main, extra)
		if security != "" && !strings.Contains(extra, "-") {
			line(security, extra+"-security")
		}
	}
	return b.String(), nil
}

// update makes the lists of a set of suites current, downloading only what has changed.
func (a *apt) update(ctx context.Context, extra string) error {
	ms, err := hostMirrors(ctx)
	if err != nil {
		return err
	}
	text, err := sources(ms, extra)
	if err != nil {
		return err
	}
	list := filepath.Join(a.dir, "etc", "sources.list")
	stamp := filepath.Join(a.dir, "updated-"+extra)
	if err := os.WriteFile(list, []byte(text), 0o644); err != nil {
		return err
	}
	if st, err := os.Stat(stamp); err == nil && time.Since(st.ModTime()) < listsAge {
		return nil
	}
	name := extra
	if name == "" {
		name = "the host's suites"
	}
	a.store.Log("fetching the package lists of %s from the host's Debian mirror", name)
	// Lists of other suites stay where they are.
	fetch := func() error {
		return run(ctx, "apt-get", append(slices.Clone(a.args), "-o", "APT::Get::List-Cleanup=false", "-qq", "update")...)
	}
	err = fetch()
	if less := withoutSecurity(text); err != nil && less != text && ctx.Err() == nil {
		a.store.Log("fetching package lists: %v: doing without the security updates", err)
		if err := os.WriteFile(list, []byte(less), 0o644); err != nil {
			return err
		}
		err = fetch()
	}
	if err != nil {
		return fmt.Errorf("fetching package lists: %w: check the network and the host's apt configuration", err)
	}
	return os.WriteFile(stamp, nil, 0o644)
}

// withoutSecurity leaves the security updates out of a sources.list: mirrors of these are
// others, and have all architectures less often.
func withoutSecurity(list string) string {
	var b strings.Builder
	for line := range strings.Lines(list) {
		if !strings.HasSuffix(strings.TrimSpace(line), "-security main") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// eachSuite calls find with the host's suites, then with one more after the
// other, until it is satisfied, and returns that one; "" are the host's.
func (a *apt) eachSuite(ctx context.Context, find func() (bool, error)) (suite string, ok bool, err error) {
	for _, extra := range append([]string{""}, extraSuites...) {
		if err := a.update(ctx, extra); err != nil {
			return "", false, err
		}
		if ok, err := find(); ok || err != nil {
			return extra, ok, err
		}
	}
	return "", false, nil
}

// findImage finds the newest signed kernel image of a version.
func (a *apt) findImage(ctx context.Context, version string) (string, error) {
	var best string
	_, ok, err := a.eachSuite(ctx, func() (bool, error) {
		names, err := a.cache(ctx, "pkgnames", "linux-image-")
		if err != nil {
			return false, err
		}
		best = newest(strings.Fields(names), version)
		return best != "", nil
	})
	if err == nil && !ok {
		err = fmt.Errorf("%w: %q is in none of the suites of the host and of %s: archives drop old ones; build the module for one that is there, as kedr vm fetch 6.1 tells", ErrNoKernel, version, strings.Join(extraSuites, ", "))
	}
	return best, err
}

func newest(names []string, version string) string {
	best := ""
	for _, n := range names {
		release, ok := strings.CutPrefix(n, "linux-image-")
		// Meta packages have no number of their own.
		if ok && strings.HasSuffix(release, flavours[archOf(version)]) && matches(release, version) &&
			(best == "" || CompareReleases(release, strings.TrimPrefix(best, "linux-image-")) > 0) {
			best = n
		}
	}
	return best
}

// offers makes the lists current that have a package, and says whose they are.
func (a *apt) offers(ctx context.Context, name string) (suite string, err error) {
	suite, ok, err := a.eachSuite(ctx, func() (bool, error) {
		names, err := a.cache(ctx, "pkgnames", name)
		return slices.Contains(strings.Fields(names), name), err
	})
	if err == nil && !ok {
		err = fmt.Errorf("%w: no package %s any more: fetch a newer kernel (kedr vm fetch --refresh)", ErrNoKernel, name)
	}
	return suite, err
}

func (a *apt) cache(ctx context.Context, args ...string) (string, error) {
	return output(ctx, "apt-cache", append(slices.Clone(a.args), args...)...)
}

// dependsRE takes names in angle brackets, too: of packages that another suite has.
var dependsRE = regexp.MustCompile(`(?m)^\s*(?:Pre)?Depends: <?([a-z0-9][a-z0-9+.-]*)`)

// depends lists what a package depends on.
func (a *apt) depends(ctx context.Context, name string) ([]string, error) {
	out, err := a.cache(ctx, "depends", name)
	if err != nil {
		return nil, err
	}
	return parseDepends(out), nil
}

func parseDepends(out string) []string {
	var names []string
	for _, m := range dependsRE.FindAllStringSubmatch(out, -1) {
		names = append(names, m[1])
	}
	return names
}

// download fetches packages, and says so.
func (a *apt) download(ctx context.Context, dir string, packages []string) ([]string, error) {
	args := append(slices.Clone(a.args), "--no-install-recommends", "--print-uris", "-qq", "download")
	uris, err := output(ctx, "apt-get", append(args, packages...)...)
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", strings.Join(packages, ", "), err)
	}
	for _, p := range parseURIs(uris) {
		a.store.Log("fetching %s (%s)", p.name, megabytes(p.size))
	}
	return a.fetch(ctx, dir, packages)
}

// fetch fetches packages; apt checks their signatures and sums.
func (a *apt) fetch(ctx context.Context, dir string, packages []string) ([]string, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	args := append(slices.Clone(a.args), "-qq", "download")
	cmd := append(args, packages...)
	// apt-get download writes to its working directory.
	if err := run(ctx, "env", append([]string{"-C", dir, "apt-get"}, cmd...)...); err != nil {
		return nil, fmt.Errorf("fetching %s: %w", strings.Join(packages, ", "), err)
	}
	return filepath.Glob(filepath.Join(dir, "*.deb"))
}

// offer is a package that apt would download, and its size in bytes.
type offer struct {
	name string
	size int64
}

// parseURIs reads what apt-get --print-uris says of each package: its address, quoted, the
// name of a file, and its size.
func parseURIs(out string) []offer {
	var offers []offer
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 3 || !strings.HasPrefix(f[0], "'") {
			continue
		}
		name, _, _ := strings.Cut(f[1], "_")
		size, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil || size < 0 {
			size = 0 // it is only shown
		}
		offers = append(offers, offer{name, size})
	}
	return offers
}

func megabytes(bytes int64) string {
	if bytes < 1e6 {
		return "under 1 MB"
	}
	return fmt.Sprintf("%d MB", bytes/1e6)
}
