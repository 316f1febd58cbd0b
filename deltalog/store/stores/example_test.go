package stores_test

import (
	"context"
	"fmt"
	"log"

	"github.com/millrace-io/millrace/deltalog/store/stores"
)

func ExampleOpenURI() {
	for _, uri := range []string{
		"/var/lib/lake",
		"s3://lake/shop?region=eu-central-1",
		"s3://lake/shop?endpoint=https://minio.example:9000",
	} {
		st, err := stores.OpenURI(context.Background(), uri)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(st.URI())
	}
	// Output:
	// file:///var/lib/lake
	// s3://lake/shop
	// s3://lake/shop
}
