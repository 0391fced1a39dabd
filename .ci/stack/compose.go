// Reads a compose file as `docker compose config` does, by the same library, and
// prints the project as JSON.
package main

import (
	"context"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	project := must(must(cli.NewProjectOptions(os.Args[1:])).LoadProject(context.Background()))
	os.Stdout.Write(must(project.MarshalJSON()))
}
