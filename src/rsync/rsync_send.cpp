#include "rsync/rsync_send.hpp"

#include <poll.h>

#include <algorithm>
#include <array>
#include <deque>
#include <exception>
#include <execnet/error.hpp>
#include <functional>
#include <iterator>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "connection/value_message.hpp"
#include "loop/waiter.hpp"
#include "rsync/rsync_session.hpp"
#include "rsync/rsync_source.hpp"
#include "rsync/rsync_target.hpp"
#include "rsync/rsync_tree.hpp"

namespace execnet::core {
namespace {

// An honest target never has more answers under way. Whatever one sends beyond that is refused by its session, so no
// more than one too many is kept.
constexpr std::size_t kMostMails = RSyncSession::kWindow + 1;

// What the targets have sent, in the order in which it came. The dispatcher threads put it in; they may
// outlast send_tree(), so each holds a share.
class Mailbox {
 public:
  struct Mail {
    std::size_t target;
    std::optional<base::Buffer> item;  // none: the channel has ended
  };

  explicit Mailbox(std::size_t targets) : counts_(targets) {}

  void put(Mail mail) {
    const std::lock_guard lock(mutex_);
    if (mail.item && ++counts_[mail.target] > kMostMails) {
      return;
    }
    mails_.push_back(std::move(mail));
    waiter_.wake();
  }
  std::deque<Mail> take() {
    const std::lock_guard lock(mutex_);
    waiter_.clear();
    std::fill(counts_.begin(), counts_.end(), 0);
    return std::exchange(mails_, {});
  }
  void wait(const base::Wait& wait) const {
    std::array<pollfd, 1> fds{{{waiter_.fd(), POLLIN, 0}}};
    base::poll_until(fds, wait);
  }

 private:
  std::mutex mutex_;
  loop::Waiter waiter_;
  std::deque<Mail> mails_;
  std::vector<std::size_t> counts_;  // of those, for each target
};

class MailCallback final : public Callback {
 public:
  MailCallback(std::shared_ptr<Mailbox> mailbox, std::size_t target) : mailbox_(std::move(mailbox)), target_(target) {}

  std::optional<std::string> on_item(base::Buffer payload, StringConfig /*strings*/) override {
    mailbox_->put({target_, std::move(payload)});
    return std::nullopt;
  }
  void on_end() override { mailbox_->put({target_, std::nullopt}); }

 private:
  const std::shared_ptr<Mailbox> mailbox_;
  const std::size_t target_;
};

// The receiving side then takes back what is half done.
void tell_to_stop(ChannelHandle& channel) {
  try {
    channel.close(std::nullopt);
  } catch (const GatewayGone&) {  // this is a forked copy of the program: the channel is the parent's
  }
}

// A target, while there is something to do for it.
class Delivery final : public SessionObserver {
 public:
  Delivery(const SourceTree& tree, BlockHashes& hashes, const RSyncTarget& target, std::size_t index,
           std::set<std::uint32_t>& unreadable, RSyncObserver& observer)
      : session_(tree, hashes, target.destination, *this),
        target_(target),
        index_(index),
        tree_(tree),
        unreadable_(unreadable),
        observer_(observer) {}

  // Sends one message if there is one; false if there is nothing to do before something comes in.
  bool step() {
    if (ended() || !session_.can_send()) {
      return false;
    }
    std::optional<List> message;
    try {
      message = session_.next_message();
    } catch (const DataFormatError& error) {
      refuse(error);
      return false;
    }
    if (message) {
      return target_.channel->post(encode_value(Value(*message)));  // if not, its end is on the way
    }
    return session_.can_send();
  }

  void take(const std::optional<base::Buffer>& item) {
    if (ended()) {
      return;
    }
    if (item) {
      take_answer(*item);
    } else {
      end();
    }
  }

  // Whether there is nothing to do for it any more: it is done, or has failed.
  [[nodiscard]] bool ended() const { return ended_ || error_; }
  [[nodiscard]] const std::exception_ptr& error() const { return error_; }
  [[nodiscard]] const std::vector<std::string>& unsteady() const { return session_.unsteady(); }
  [[nodiscard]] const std::string& gateway() const { return target_.gateway; }
  void abandon() { tell_to_stop(*target_.channel); }

  void on_list(std::uint64_t bytes) override { observer_.on_list(index_, bytes); }
  void on_send_file(const std::string& relative) override { observer_.on_send_file(index_, relative); }
  void on_done(std::uint64_t bytes) override { observer_.on_ack(index_, bytes); }
  void on_unreadable(std::uint32_t number) override {
    if (unreadable_.insert(number).second) {
      observer_.on_unreadable(tree_.path(number));
    }
  }

 private:
  void take_answer(const base::Buffer& item) {
    Value answers;
    try {
      // Strings of a Python 2 are bytes; what is text there comes as text.
      answers = decode_value(item.view(), nullptr, {.py2str_as_py3str = false});
      session_.answered(answers);
    } catch (const DataFormatError& error) {
      refuse(error);
    }
  }

  void refuse(const DataFormatError& error) {
    error_ = std::make_exception_ptr(
        DataFormatError(gateway() + " does not answer as the receiving side of RSync does: " + error.what()));
    abandon();
  }

  void end() {
    ended_ = true;
    error_ = target_.channel->take_error();
    if (!error_ && !session_.finished()) {
      error_ = std::make_exception_ptr(ChannelClosed(gateway() + " has ended before it had everything"));
    }
    if (!error_) {
      observer_.on_finished(index_);
    }
  }

  RSyncSession session_;
  const RSyncTarget& target_;
  const std::size_t index_;
  const SourceTree& tree_;
  std::set<std::uint32_t>& unreadable_;  // what was told of already, for all targets
  RSyncObserver& observer_;
  std::exception_ptr error_;
  bool ended_ = false;
};

[[noreturn]] void throw_late(const std::vector<std::string>& late, std::size_t all) {
  std::string names;
  for (const std::string& gateway : late) {
    names.append(names.empty() ? "" : ", ").append(gateway);
  }
  throw TimeoutError(std::to_string(late.size()) + " of " + std::to_string(all) +
                     " targets of RSync did not finish in time, and were told to stop: " + names);
}

// The targets of one send_tree(). What is not ended when this goes is told to stop.
class Deliveries {
 public:
  Deliveries(const SourceTree& tree, const std::vector<RSyncTarget>& targets, RSyncObserver& observer)
      : mailbox_(std::make_shared<Mailbox>(targets.size())) {
    for (const RSyncTarget& target : targets) {
      const std::size_t index = all_.size();
      all_.push_back(std::make_unique<Delivery>(tree, hashes_, target, index, unreadable_, observer));
      target.channel->set_callback(std::make_shared<MailCallback>(mailbox_, index));
    }
  }
  ~Deliveries() {
    for (const auto& delivery : all_) {
      if (!delivery->ended()) {
        delivery->abandon();
      }
    }
  }
  Deliveries(const Deliveries&) = delete;
  Deliveries& operator=(const Deliveries&) = delete;

  void run(const base::Wait& wait) {
    while (!all_ended()) {
      for (Mailbox::Mail& mail : mailbox_->take()) {
        all_[mail.target]->take(mail.item);
      }
      if (all_ended()) {
        break;
      }
      check_time(wait);
      bool worked = false;
      for (const auto& delivery : all_) {
        worked = delivery->step() || worked;
      }
      if (wait.interrupted != nullptr) {
        wait.interrupted();  // there may be work without waiting for long
      }
      if (!worked && !all_ended()) {
        mailbox_->wait(wait);
      }
    }
    for (const auto& delivery : all_) {
      if (delivery->error()) {
        std::rethrow_exception(delivery->error());
      }
    }
    for (const auto& delivery : all_) {
      if (!delivery->unsteady().empty()) {
        throw Error("'" + delivery->unsteady().front() + "' was written to, again and again, while it was sent; " +
                    "the targets keep what they had. Send it again when it holds still");
      }
    }
  }

 private:
  [[nodiscard]] bool all_ended() const {
    return std::all_of(all_.begin(), all_.end(), [](const auto& delivery) { return delivery->ended(); });
  }

  // Raises if the deadline has passed. Whoever is not done then is told to stop as this goes.
  void check_time(const base::Wait& wait) const {
    if (!base::has_passed(wait.deadline)) {
      return;
    }
    std::vector<std::string> late;
    for (const auto& delivery : all_) {
      if (!delivery->ended()) {
        late.push_back(delivery->gateway());
      }
    }
    throw_late(late, all_.size());
  }

  const std::shared_ptr<Mailbox> mailbox_;
  BlockHashes hashes_;
  std::set<std::uint32_t> unreadable_;
  std::vector<std::unique_ptr<Delivery>> all_;
};

}  // namespace

std::shared_ptr<ChannelHandle> start_rsync_target(GatewayEnd& gateway, const base::Wait& wait) {
  const Tuple task{rsync_target_source(), "<execnet rsync_target>", 1, "receive", Dict{}};
  // Sessions have windows of their own, and nothing in them may wait for one target.
  return gateway.exec(encode_value(Value(task)), wait, false);
}

void send_tree(const std::string& source, const std::vector<RSyncTarget>& targets, RSyncObserver& observer,
               const base::Wait& wait) {
  std::optional<SourceTree> tree;
  try {
    tree.emplace(source, [&](const std::string& path) {
      if (base::has_passed(wait.deadline)) {
        std::vector<std::string> all;
        std::transform(targets.begin(), targets.end(), std::back_inserter(all), std::mem_fn(&RSyncTarget::gateway));
        throw_late(all, targets.size());
      }
      if (wait.interrupted != nullptr) {
        wait.interrupted();
      }
      return observer.filter(path);
    });
    for (std::size_t number = 0; number < tree->size(); ++number) {
      if ((*tree)[number].unreadable) {
        observer.on_unreadable(tree->path(number));
      }
    }
  } catch (...) {
    for (const RSyncTarget& target : targets) {
      tell_to_stop(*target.channel);
    }
    throw;
  }
  Deliveries deliveries(*tree, targets, observer);
  deliveries.run(wait);
}

}  // namespace execnet::core
