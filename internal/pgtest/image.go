package pgtest

// This file finds the image for the containers, and builds one from Debian
// packages where none can be pulled: debootstrap makes a root file system with
// PostgreSQL in it, and image/Dockerfile makes an image of that.

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/testcontainers/testcontainers-go"
)

const (
	officialImage = "postgres:17"

	builtRepo     = "aurorapgx/postgres"
	builtTag      = "15" // what the Debian release below has
	debianRelease = "bookworm"

	pullTimeout  = 5 * time.Minute
	buildTimeout = 10 * time.Minute

	// failureHolds is how long a failed build is not tried again, by any
	// process: it may have taken a minute to fail, and a run of the tests has
	// many processes.
	failureHolds = 10 * time.Minute
)

//go:embed image
var imageFiles embed.FS

// dockerImage returns an image that is there, and how to call it in Source.
func dockerImage(ctx context.Context, provider *testcontainers.DockerProvider, getenv func(string) string) (image, source string, err error) {
	if image = getenv("PGTEST_IMAGE"); image != "" {
		// Asked for by name, so no other one will do.
		return image, "Docker, " + image, havePulled(ctx, provider, image)
	}
	built := builtRepo + ":" + builtTag
	builtSource := fmt.Sprintf("Docker, image %s built from Debian packages", built)
	if have, err := haveImage(ctx, provider, officialImage); have || err != nil {
		return officialImage, "Docker, " + officialImage, err
	}
	// Before trying to pull: that it was built means that a pull failed here,
	// and without a network that can take long.
	if have, err := haveImage(ctx, provider, built); have || err != nil {
		return built, builtSource, err
	}
	pullErr := havePulled(ctx, provider, officialImage)
	if pullErr == nil {
		return officialImage, "Docker, " + officialImage, nil
	}
	if err := haveBuilt(ctx, provider, built); err != nil {
		return "", "", errors.Join(pullErr, err)
	}
	return built, builtSource, nil
}

func haveImage(ctx context.Context, provider *testcontainers.DockerProvider, image string) (bool, error) {
	_, err := provider.Client().ImageInspect(ctx, image)
	if missing(err) {
		return false, nil
	}
	return err == nil, err
}

// havePulled sees to it that image is there, by pulling it if need be.
func havePulled(ctx context.Context, provider *testcontainers.DockerProvider, image string) error {
	have, err := haveImage(ctx, provider, image)
	if have || err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	if err := provider.PullImage(ctx, image); err != nil {
		return fmt.Errorf("pull %s: %w", image, err)
	}
	// A pull that fails half way through reports that in the text of its answer,
	// which testcontainers throws away.
	if have, err = haveImage(ctx, provider, image); !have && err == nil {
		err = fmt.Errorf("pull %s: the image is not there afterwards", image)
	}
	return err
}

// haveBuilt sees to it that our own image is there. Of several processes one
// builds it while the others wait.
func haveBuilt(ctx context.Context, provider *testcontainers.DockerProvider, image string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("build %s: this needs root, for debootstrap", image)
	}
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	lock := filepath.Join(os.TempDir(), "aurorapgx-postgres-"+builtTag+".lock")
	unlock, err := lockFile(ctx, lock)
	if err != nil {
		return fmt.Errorf("wait for the build of %s: %w", image, err)
	}
	defer unlock()
	if have, err := haveImage(ctx, provider, image); have || err != nil {
		return err
	}
	failure := strings.TrimSuffix(lock, ".lock") + ".failed"
	if info, err := os.Stat(failure); err == nil && time.Since(info.ModTime()) < failureHolds {
		reason, _ := os.ReadFile(failure)
		return fmt.Errorf("build %s: failed at %s and is not tried again for %v (remove %s to try it now): %s",
			image, info.ModTime().Format(time.TimeOnly), failureHolds, failure, reason)
	}
	if err := buildImage(ctx, provider); err != nil {
		if ctx.Err() == nil {
			err = errors.Join(err, os.WriteFile(failure, []byte(err.Error()), 0o600))
		}
		return fmt.Errorf("build %s: %w", image, err)
	}
	return nil
}

func buildImage(ctx context.Context, provider *testcontainers.DockerProvider) (err error) {
	if err := needDebootstrap(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "pgtest-image-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	buildContext := filepath.Join(dir, "context")
	if err := os.Mkdir(buildContext, 0o700); err != nil {
		return err
	}
	dockerfile, err := imageFiles.ReadFile("image/Dockerfile")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(buildContext, "Dockerfile"), dockerfile, 0o600); err != nil {
		return err
	}
	root := filepath.Join(dir, "root")
	if err := tool(ctx, "debootstrap", "--variant=minbase",
		"--include=postgresql-"+builtTag, debianRelease, root); err != nil {
		return err
	}
	// What a server does not need. The cluster the package made is among it:
	// each server makes its own.
	if err := tool(ctx, "tar", "-C", root, "--numeric-owner",
		"--exclude=./var/lib/postgresql/*/main", "--exclude=./var/cache/apt/*",
		"--exclude=./var/lib/apt/lists/*", "--exclude=./usr/share/doc/*",
		"--exclude=./usr/share/man/*", "--exclude=./usr/share/locale/*",
		"--exclude=./proc/*", "--exclude=./sys/*", "--exclude=./dev/*",
		"-cf", filepath.Join(buildContext, "rootfs.tar"), "."); err != nil {
		return err
	}
	_, err = provider.BuildImage(ctx, &testcontainers.ContainerRequest{
		FromDockerfile: testcontainers.FromDockerfile{
			Context:   buildContext,
			Repo:      builtRepo,
			Tag:       builtTag,
			KeepImage: true,
		},
	})
	return err
}

func needDebootstrap(ctx context.Context) error {
	if _, err := exec.LookPath("debootstrap"); err == nil {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.New("this needs debootstrap, which is not installed, nor is this Debian or Ubuntu to install it")
	}
	install := func() error { return tool(ctx, "apt-get", "install", "-y", "debootstrap") }
	if install() == nil {
		return nil
	}
	// The lists of packages may be missing or old.
	if err := tool(ctx, "apt-get", "update"); err != nil {
		return err
	}
	return install()
}

// tool runs a program; its error has the last lines of what it printed.
func tool(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return fmt.Errorf("%s: %w\n%s", name, err, strings.Join(lines[max(0, len(lines)-10):], "\n"))
}
