package store_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/millrace-io/millrace/deltalog/store"
)

// Of those who create an object of one name, one succeeds.
func ExampleStore() {
	ctx := context.Background()
	lake := store.NewMemory()
	orders, err := lake.Sub("shop/orders")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(orders.PutIfAbsent(ctx, "_delta_log/0.json", []byte("mine")))
	err = orders.PutIfAbsent(ctx, "_delta_log/0.json", []byte("yours"))
	fmt.Println(errors.Is(err, store.ErrExist))
	for info, err := range lake.List(ctx, "shop/", "") {
		fmt.Println(info.Name, info.Size, err)
	}
	// Output:
	// <nil>
	// true
	// shop/orders/_delta_log/0.json 4 <nil>
}

// A program that writes can find out at its start whether it may.
func ExampleProbe() {
	st := store.NewMemory()
	fmt.Println(store.Probe(context.Background(), st))
	// Output: <nil>
}
