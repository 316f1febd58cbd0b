package s3_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/s3"
)

func ExampleOpen() {
	ctx := context.Background()
	st, err := s3.Open(ctx, s3.Options{
		Bucket: "lake",
		Prefix: "shop/orders",
		Region: "eu-central-1",
		KMSKey: "alias/lake",
	})
	if err != nil {
		log.Fatal(err)
	}
	b, err := st.Get(ctx, "_delta_log/_last_checkpoint")
	switch {
	case errors.Is(err, store.ErrNotExist):
		fmt.Println("no checkpoint yet")
	case errors.Is(err, s3.ErrCredentials), errors.Is(err, s3.ErrNoBucket), errors.Is(err, store.ErrPermission):
		log.Fatal(err) // it says what to do
	case err == nil:
		fmt.Printf("%s\n", b)
	}
}

func ExampleParseURI() {
	o, err := s3.ParseURI("s3://lake/shop?region=eu-central-1&kms-key=alias/lake")
	fmt.Println(o.Bucket, o.Prefix, o.Region, o.KMSKey, err)
	// Output: lake shop eu-central-1 alias/lake <nil>
}
