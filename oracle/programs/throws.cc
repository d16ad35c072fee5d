// Exceptions through several frames: caught, thrown again, carried to another thread. usage: throws ROUNDS
#include <cstdlib>
#include <exception>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>

static volatile int sink;
struct Count {
	~Count() { sink = sink + 1; }
};

__attribute__((noinline)) static void thrower(int n)
{
	Count count;
	if (n == 0)
		throw std::runtime_error("end");
	try {
		thrower(n - 1);
	} catch (const std::logic_error &) {
		sink = 0;
	} catch (const std::runtime_error &) {
		if (n % 2)
			throw;
		throw std::runtime_error("again");
	}
	sink = sink + 2;
}

__attribute__((noinline)) static void carried()
{
	std::exception_ptr caught;
	std::thread other([&] {
		try {
			thrower(2);
		} catch (...) {
			caught = std::current_exception();
		}
	});
	other.join();
	try {
		std::rethrow_exception(caught);
	} catch (const std::exception &error) {
		sink = sink + std::string(error.what()).size();
	}
}

struct Base {
	virtual int work(int n) { return n; }
	virtual ~Base() = default;
};
struct Left : virtual Base {};
struct Right : virtual Base {
	int work(int n) override { return n + 1; }
};
struct Both : Left, Right {};

/* What C++ code is made of besides: thunks, maps, strings, std::function. */
__attribute__((noinline)) static void ordinary(int n)
{
	std::map<std::string, int> words;
	for (int i = 0; i < n; i++)
		words[std::to_string(i * 7919 % 101)] += i;
	Both both;
	Left &left = both;
	std::function<int(int)> call = [&](int i) { return left.work(i) + (int)words.size(); };
	sink = sink + call(n);
}

extern "C" __attribute__((noinline)) void done()
{
	sink = sink + 1;
}

int main(int count, char **words)
{
	for (long n = 0; count > 1 && n < std::atol(words[1]); n++) {
		try {
			thrower(n % 6);
		} catch (const std::exception &error) {
			sink = sink + std::string(error.what()).size();
		}
		carried();
		ordinary(n % 20);
		done();
	}
	return 0;
}
